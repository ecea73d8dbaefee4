#!/bin/sh
# The command follows, as in the published image.
exec "$@"
