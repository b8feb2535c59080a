"""Commands that ask a running server over its REST API: `pirl job`, `pirl model`."""
