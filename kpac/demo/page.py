"""The demo's page: upload a photograph, and download the restored photograph."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kpac.demo.job import JobResult, RestoreJob
from kpac.errors import UserError
from kpac.images import SUFFIXES
from kpac.inspect.attention import kpac_blocks
from kpac.models.interface import ImageNetwork

POLL = 0.2  # seconds between two updates of a job's progress
KEPT = 600  # seconds after which files are deleted, even if the session is still open


def make_page(model: ImageNetwork, label: str, folder: Path, options: Mapping[str, Any], quality: int = 95) -> Any:
    """Makes the page, as gradio's Blocks.

    Args:
        model: the network.
        label: name of the network on the page.
        folder: temporary folder for results, which the caller deletes.
        options: arguments of `kpac.Restorer`: tile, precision, device.
        quality: quality of JPEG and WebP, 1 to 100.

    Raises:
        UserError: gradio is not installed.
    """
    gradio = import_gradio()
    jobs: dict[str, RestoreJob] = {}
    others = [view for view in model.views if view != "center"]
    has_attention = any(block.scale_attention is not None for block in kpac_blocks(model))

    def restore(request: gradio.Request, *given: Any) -> Iterator[Any]:  # type: ignore[name-defined]  # gradio reads it
        """Starts a job, and yields its progress and finally its result to the page."""
        *files, attention = given
        names = ["center", *others]
        nothing = (None, None, gradio.update(value=None, interactive=False))
        missing = [name for name, file in zip(names, files, strict=True) if not file]
        if missing:
            what = "the photograph" if missing == ["center"] else f"the {' and the '.join(missing)} view"
            yield (f"Choose {what} first.", *nothing)
            return
        views = {name: Path(file) for name, file in zip(names, files, strict=True)}
        output = Path(tempfile.mkdtemp(dir=folder)) / f"restored {views['center'].name}"
        job = RestoreJob(model, options, views, output, quality, attention)
        earlier = jobs.pop(request.session_hash, None)
        if earlier:
            earlier.cancel()
            earlier.output.unlink(missing_ok=True)
        jobs[request.session_hash] = job
        start = time.monotonic()
        job.start()
        while job.is_alive() and not job.is_cancelled:
            job.watch()
            yield (_progress(job, time.monotonic() - start), *nothing)
            job.join(POLL)
        if job.is_cancelled:
            yield ("Cancelled.", *nothing)
        elif job.error:
            yield (job.error.removesuffix(".") + ".", *nothing)  # not capitalised: it begins with the file's name
        elif done := job.result:
            button = gradio.update(value=str(done.file), interactive=True)
            yield (_summary(done), (done.original, done.result), done.attention or None, button)

    def cancel(request: gradio.Request) -> None:  # type: ignore[name-defined]
        if request.session_hash in jobs:
            jobs[request.session_hash].cancel()

    def leave(request: gradio.Request) -> None:  # type: ignore[name-defined]
        """Ends a session: cancels its job and deletes its files."""
        job = jobs.pop(request.session_hash, None)
        if job:
            job.cancel()
            for path in (job.output, *job.views.values()):
                path.unlink(missing_ok=True)

    with gradio.Blocks(title="KPAC: defocus deblurring", analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        gradio.Markdown("# Defocus deblurring")
        gradio.Textbox(label, label="Network", interactive=False, max_lines=1)
        with gradio.Row():
            photograph = gradio.File(label="Photograph", file_types=list(SUFFIXES), elem_id="photograph")
            views = [
                gradio.File(label=f"{view.capitalize()} dual-pixel view", file_types=list(SUFFIXES), elem_id=view)
                for view in others
            ]
        attention = gradio.Checkbox(False, label="Show scale attention", visible=has_attention, elem_id="attention")
        with gradio.Row():
            start = gradio.Button("Restore", variant="primary", elem_id="restore")
            stop = gradio.Button("Cancel", elem_id="cancel")
            download = gradio.DownloadButton("Download", interactive=False, elem_id="download")
        status = gradio.Textbox(label="Status", interactive=False, elem_id="status", lines=2)
        slider = gradio.ImageSlider(label="Original and restored", format="png", interactive=False, max_height=700)
        maps = gradio.Gallery(
            label="Scale attention", visible=has_attention, format="png", interactive=False, object_fit="contain"
        )
        outputs = [status, slider, maps, download]
        inputs = [photograph, *views, attention]
        start.click(restore, inputs, outputs, concurrency_limit=4, show_progress="hidden", api_name="restore")
        stop.click(cancel, queue=False, show_progress="hidden", api_visibility="private")
        page.unload(leave)
    return page


def launch(
    model: ImageNetwork,
    label: str,
    options: Mapping[str, Any],
    host: str = "127.0.0.1",
    port: int | None = None,
    megabytes: int = 200,
    quality: int = 95,
    until: threading.Event | None = None,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serves the page until Ctrl-C; uploads and results are deleted at the end.

    Args:
        model, label, options, quality: see `make_page`.
        host: address to listen on; the default accepts connections from this machine only.
        port: port to listen on; None for the first free one, starting at 7860.
        megabytes: size limit of uploaded files.
        until: stops the page when set, instead of Ctrl-C.
        ready: called with the address once the page answers.

    Raises:
        UserError: gradio is not installed, or the port is taken.
    """
    import_gradio()
    _bypass_proxies()
    with tempfile.TemporaryDirectory(prefix="kpac-demo-") as name:
        folder = Path(name)
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
        page = make_page(model, label, folder, options, quality)
        try:
            _, address, _ = page.queue(max_size=20).launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                show_error=True,
                max_file_size=f"{megabytes}mb",
                allowed_paths=[str(folder)],
                footer_links=[],
                ssr_mode=False,
                prevent_thread_lock=True,
                _frontend=False,  # otherwise gradio fails if the machine is too busy to answer within three seconds
                quiet=True,
            )
        except OSError as error:
            raise UserError(f"port {port}: cannot be opened ({error})", "port") from None
        try:
            if ready:
                ready(address)
            (until or threading.Event()).wait()
        finally:
            page.close(verbose=False)


def import_gradio() -> Any:
    """Imports gradio with its analytics switched off.

    Raises:
        UserError: gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError:
        raise UserError("the page needs the package gradio; pip install 'kpac[demo]'") from None
    return gradio


def _bypass_proxies() -> None:
    """Makes gradio connect to its own page directly, even if the environment names a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))


def _progress(job: RestoreJob, seconds: float) -> str:
    share = "" if job.share is None else f": {job.share:.0%} of the tiles"
    return f"{job.stage[0].upper()}{job.stage[1:]}{share}, {seconds:.0f} s"


def _summary(done: JobResult) -> str:
    height, width = done.size
    how = "in one pass" if done.tile is None else f"in tiles of {done.tile}"
    return (
        f"{width} x {height} pixels, {done.bit_depth} bits, restored {how} in {done.seconds:.1f} s; "
        f"{done.memory_gb:.2f} GB of memory at the peak."
    )
