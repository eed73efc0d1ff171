from sgmg_jax.raw import refcoco as raw

__all__ = ['raw']
