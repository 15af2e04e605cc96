#!/bin/sh
# Fill an empty cache volume with the compiled numba functions of the image, then become forewatch.
set -eu
if [ -f /opt/kernels.tar.xz ] && [ -z "$(ls -A "$NUMBA_CACHE_DIR" 2>/dev/null)" ]; then
    # Without a writable cache the functions are compiled at each start.
    python -m tarfile --extract /opt/kernels.tar.xz "$NUMBA_CACHE_DIR" 2>/dev/null || true
fi
exec forewatch "$@"
