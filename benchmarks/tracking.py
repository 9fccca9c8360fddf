"""Does one MLflow server get all that many runs tell it at once, and what does telling it cost a run?

    python benchmarks/tracking.py runs=50 at_once=4                          # a server on SQLite, of its own
    python benchmarks/tracking.py store=postgresql://lit_gen@localhost/runs  # a server on this database
    python benchmarks/tracking.py uri=http://host:5000                       # a server that is there

After each task a run tells every metric of every task so far. It asks the server for every value afterwards.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from timing import options

from lit_gen.tracking.mlflow import TrackingLogger


def tell(folder: str, uri: str, tasks: int, metrics: int) -> tuple[str, float, float, bool]:
    """One run; its id, seconds of the processor and of the clock, and whether the server lacks something."""
    clock, processor = time.perf_counter(), time.process_time()
    logger = TrackingLogger(folder, uri, experiment_name="benchmark")
    for after in range(tasks):
        logger.log_metrics(
            {f"metric{m}/task{k}": value(m, k, after) for m in range(metrics) for k in range(after + 1)},
            after,
        )
    logger.finish("FINISHED")
    spent = time.process_time() - processor, time.perf_counter() - clock
    return logger.run_id, *spent, logger.is_behind


def value(metric: int, task: int, after: int) -> float:
    return 1000.0 * metric + task + after / 100


def served(store: str, folder: Path, port: int, at_the_end: ExitStack) -> str:
    """The address of a server on this database, which ends with the benchmark."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = at_the_end.enter_context(subprocess.Popen(command, **quiet))
    at_the_end.callback(process.terminate)
    uri = f"http://127.0.0.1:{port}"
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=1)
            return uri
        except OSError:
            if process.poll() is not None:
                sys.exit(f"the server on {store.partition('://')[0]} did not start")
            time.sleep(0.5)


def main() -> None:
    given = options(runs=50, at_once=4, tasks=20, metrics=10, uri=None, store=None, port=5123)
    runs, tasks, metrics = given["runs"], given["tasks"], given["metrics"]
    with ExitStack() as at_the_end:
        folder = Path(at_the_end.enter_context(TemporaryDirectory()))
        store = given["store"] or f"sqlite:///{folder / 'mlflow.db'}"
        uri = given["uri"] or served(store, folder, given["port"], at_the_end)
        began = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(given["at_once"], mp_context=context) as pool:
            told = [
                pool.submit(tell, str(folder / "runs" / str(n)), uri, tasks, metrics) for n in range(runs)
            ]
            ids, processor, clock, behind = zip(*(each.result() for each in told), strict=True)
        seconds, client, wrong, count = time.perf_counter() - began, MlflowClient(uri), 0, 0
        for run in ids:
            for m in range(metrics):
                for k in range(tasks):
                    found = {(v.step, v.value) for v in client.get_metric_history(run, f"metric{m}/task{k}")}
                    expected = {(after, value(m, k, after)) for after in range(k, tasks)}
                    wrong, count = wrong + len(found ^ expected), count + len(expected)
    print(
        f"{runs} runs, {given['at_once']} at once: {count} values, {wrong} missing or wrong, "
        f"{sum(behind)} runs behind\n{seconds:.0f} s in all; a run: {sum(processor) / runs:.2f} s "
        f"of the processor, {sum(clock) / runs:.2f} s of the clock"
    )


if __name__ == "__main__":
    main()
