"""Settings of the test run."""
from absl import flags

# Worker processes of grain refuse to start before absl flags are parsed.
flags.FLAGS.mark_as_parsed()
