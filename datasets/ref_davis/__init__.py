from sgmg_jax.raw import davis as raw

__all__ = ['raw']
