from sgmg_jax.raw import mevis as raw

__all__ = ['raw']
