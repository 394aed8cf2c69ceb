"""Vision encoders, published or trained here, as parameters of ours."""
