from sgmg_jax.raw import a2d as raw

__all__ = ['raw']
