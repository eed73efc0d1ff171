from sgmg_jax.raw import youtube as raw

__all__ = ['raw']
