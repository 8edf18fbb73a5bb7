"""Looking into a trained network: attention, kernels, receptive field. A function and a sheet for each."""
