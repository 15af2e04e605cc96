#!/bin/sh
# slim.sh VENV EPOCH: remove what a running image does not need, compile, and set all times to EPOCH.
set -eu
venv=$1
epoch=$2
packages=$(echo "$venv"/lib/python3*/site-packages)

find "$packages" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
find "$packages" -type f \( -name '*.py[xdi]' -o -name '*.px[id]' -o -name '*.a' -o -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' \) \
    -not -path '*/torch/*' -not -path '*/triton/*' -not -path '*/nvidia/*' -delete
# Data sets and examples of libraries.
rm -rf "$packages"/river/datasets/*.csv* "$packages"/river/datasets/*.zip "$packages"/river/drift/datasets/*.csv \
    "$packages"/matplotlib/mpl-data/sample_data
# Charts have one typeface (LastResort is looked for by name), and are PNG: no AVIF.
rm -rf "$packages"/matplotlib/mpl-data/fonts/afm "$packages"/matplotlib/mpl-data/fonts/pdfcorefonts
# Matplotlib takes the names of glyphs from fontTools, not its formats of fonts.
find "$packages"/fontTools -mindepth 1 -maxdepth 1 -type d -not -name misc -exec rm -rf {} +
rm -f "$packages"/fontTools/misc/*.so
find "$packages"/matplotlib/mpl-data/fonts/ttf -name '*.ttf' -not -name 'DejaVuSans.ttf' -not -name 'DejaVuSans-Bold.ttf' \
    -not -name 'DejaVuSans-Oblique.ttf' -not -name 'LastResort*' -delete
rm -f "$packages"/PIL/_avif*.so "$packages"/pillow.libs/libavif*
# Names of holidays in other languages.
rm -rf "$packages"/holidays/locale
# Databases and collections that are not used.
rm -rf "$packages"/sqlalchemy/dialects/mssql "$packages"/sqlalchemy/dialects/mysql "$packages"/sqlalchemy/dialects/oracle
rm -rf "$packages"/dask/dataframe "$packages"/dask/array
# Other uses of libraries: building extensions, tests of processors, pages of Dask, CUDA (torch brings its own),
# a second implementation of zstandard, the client of schema registries of confluent (ours is in pipeline/decode).
rm -rf "$packages"/numpy/distutils "$packages"/numpy/_core/_simd.*.so \
    "$packages"/sqlalchemy/testing "$packages"/tornado/test "$packages"/distributed/http/static \
    "$packages"/matplotlib/sphinxext "$packages"/mpl_toolkits "$packages"/scipy/stats/_sobol_direction_numbers.npz \
    "$packages"/scipy/io/_fast_matrix_market/_fmm_core.*.so \
    "$packages"/pyarrow/src "$packages"/pyarrow/include "$packages"/numba/cuda "$packages"/zstandard/_cffi.*.so \
    "$packages"/confluent_kafka/schema_registry "$packages"/confluent_kafka/avro
# Of Arrow: clouds (storage goes through fsspec), ORC, encrypted Parquet, plans of Substrait. Debian has the time zones.
rm -rf "$packages"/pyarrow/_gcsfs.*.so "$packages"/pyarrow/_azurefs.*.so "$packages"/pyarrow/_hdfs.*.so \
    "$packages"/pyarrow/_orc.*.so "$packages"/pyarrow/_dataset_orc.*.so "$packages"/pyarrow/_substrait.*.so \
    "$packages"/pyarrow/_parquet_encryption.*.so "$packages"/pyarrow/_dataset_parquet_encryption.*.so \
    "$packages"/pyarrow/libarrow_python_parquet_encryption.* "$packages"/tzdata/zoneinfo
# Charts are drawn by matplotlib, whose own library sets the texts; PIL writes the file.
rm -f "$packages"/PIL/_imagingft.*.so "$packages"/PIL/_imagingcms.*.so "$packages"/PIL/_webp.*.so \
    "$packages"/pillow.libs/libharfbuzz* "$packages"/pillow.libs/libfreetype* "$packages"/pillow.libs/libwebp* \
    "$packages"/pillow.libs/liblcms2*
# Lists of the files of packages are for pip.
rm -f "$packages"/*.dist-info/RECORD
# numpy and scipy bring the same runtime of Fortran.
for library in "$packages"/scipy.libs/*; do
    name=$(basename "$library")
    if cmp -s "$library" "$packages/numpy.libs/$name"; then ln -sf "../numpy.libs/$name" "$library"; fi
done
# Arrow's RPC and its own access to S3 are not used (storage goes through fsspec). libarrow_substrait must stay: all
# other libraries of pyarrow link to it.
rm -f "$packages"/pyarrow/libarrow_flight.so* "$packages"/pyarrow/libarrow_python_flight.so* "$packages"/pyarrow/_flight*.so \
    "$packages"/pyarrow/libarrow_s3.so* "$packages"/pyarrow/_s3fs*.so "$packages"/pyarrow/_pyarrow_cpp_tests*.so
# A wheel holds the links between versions of a library as copies.
for library in "$packages"/pyarrow/*.so.*.*.*; do
    [ -e "$library" ] || continue
    name=$(basename "$library")
    for copy in "${library%.*.*.*}" "${library%.*.*}"; do
        if [ -e "$copy" ]; then ln -sf "$name" "$copy"; fi
    done
done
rm -rf "$packages"/pip "$packages"/pip-* "$packages"/setuptools "$packages"/setuptools-* "$packages"/pkg_resources
rm -f "$venv"/bin/pip* "$venv"/bin/[Aa]ctivate*
# Symbols are for debuggers. Torch, CUDA and repaired libraries (*.libs, whose segments strip misaligns) stay.
find "$packages" -type f -name '*.so*' -not -path '*/torch/*' -not -path '*/nvidia/*' -not -path '*/triton/*' -not -path '*.libs/*' \
    -exec strip --strip-unneeded {} + 2>/dev/null || true

"$venv"/bin/python /usr/local/lib/compile_used.py
# numba compares the time of a source file with that in its cache.
find "$venv" -exec touch --no-dereference --date="@$epoch" {} +
