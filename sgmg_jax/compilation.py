"""How programs are compiled."""
import functools

import jax


def jit(function, **options):
    """`jax.jit`, with float32 that is float32, and on a CPU with the schedule that needs less memory.

    By default JAX multiplies float32 matrices in TF32 on a GPU and in bfloat16 on a TPU, which is three and two
    digits; the models' numbers would then be another machine's. Products of bfloat16 are the same either way. A user
    who has set another precision (JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32, for speed) gets that.

    XLA's default schedule for CPUs runs as much as it can side by side: a training step on five frames of 360x640 then
    holds 17 GB instead of 12, and is slower for touching them.
    """
    @functools.wraps(function)
    def at_full_precision(*args):
        with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or 'float32'):
            return function(*args)

    if jax.default_backend() == 'cpu':
        options['compiler_options'] = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
    return jax.jit(at_full_precision, **options)
