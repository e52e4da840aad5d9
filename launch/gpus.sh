# Settings for a training that has its GPUs to itself; source it. What is set already stays. They
# are NVIDIA's advice for JAX (JAX-Toolbox, GPU performance) and not measured here.

# JAX takes 75 % of a GPU's memory by itself; nothing but CUDA's libraries needs the rest.
export XLA_CLIENT_MEM_FRACTION="${XLA_CLIENT_MEM_FRACTION:-0.9}"

several_gpus() {
  # XLA plans exchanges by what it knows of the GPU; compiling takes longer. Compiled without one,
  # the step is the same: that gradients go beside the backward pass is `sharding.OVERLAPPED`.
  export JAX_OPTIMIZATION_LEVEL="${JAX_OPTIMIZATION_LEVEL:-O1}"
  # Kernels start in the order that XLA has planned. On Hopper; not advised on Blackwell.
  if [[ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader)" == 9.* ]]; then
    export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
  fi
}
