# Sourced by the scripts for GPU machines, from the root of the repository: sets `python` and PYTHONPATH, and unpacks the
# wheels of .gpu/wheels for packages that the machine lacks. Packages that are installed stay as they are.
python=${PYTHON:-python3}
wheels=.gpu/wheels
site=$PWD/.gpu/site
# package:module, of what images of PyTorch for GPUs often lack.
packages=(pydantic:pydantic pydantic-core:pydantic_core annotated-types:annotated_types
    typing-inspection:typing_inspection typing-extensions:typing_extensions lpips:lpips imagecodecs:imagecodecs
    safetensors:safetensors tifffile:tifffile psutil:psutil tqdm:tqdm)

prepare_packages() { # fetches the wheels, of the versions of constraints.txt, for Python 3.12 on Linux
    rm -rf "$wheels"
    "$python" -m pip download --quiet --dest "$wheels" --constraint constraints.txt --no-deps --only-binary=:all: \
        --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \
        --platform any "${packages[@]%%:*}"
    echo "prepared: $(find "$wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$wheels" | cut -f1), in $wheels"
}

add_packages() {
    export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
    local package name
    for package in "${packages[@]}"; do
        name=${package%%:*}
        if ! "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('${package##*:}') is None)"; then
            "$python" -m pip install --quiet --no-index --no-deps --find-links "$wheels" --target "$site" "$name" ||
                echo "$name is missing, and $wheels has no wheel for it: run scripts/check_gpu.sh --prepare first" >&2
        fi
    done
}
