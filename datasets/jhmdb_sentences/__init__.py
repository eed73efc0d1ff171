from sgmg_jax.raw import jhmdb as raw

__all__ = ['raw']
