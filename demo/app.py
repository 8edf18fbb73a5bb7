"""The page of `kpac demo` on a host that decides about address and port."""

import os
import sys
from pathlib import Path

import kpac
from kpac.demo.page import launch
from kpac.weights.store import default_weights


def main() -> None:
    """Serves the page until the host ends it.

    A host of gradio's names address and port in GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.
    """
    path = os.environ.get("KPAC_MODEL") or default_weights()
    port = os.environ.get("GRADIO_SERVER_PORT")
    try:
        model = kpac.load_model(path)
        launch(
            model,
            f"{model.config['name']}, {Path(path).name}",
            {},
            host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
            port=int(port) if port else None,
            megabytes=int(os.environ.get("KPAC_MAX_MEGABYTES", "50")),
        )
    except kpac.UserError as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
