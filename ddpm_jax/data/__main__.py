"""`python -m ddpm_jax.data prepare NAME --data_dir=DIR`: see `prepare.main`."""

import sys

from ddpm_jax.data.prepare import main

sys.exit(main())
