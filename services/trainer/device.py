"""How busy and how full the training device is; asked when metrics are exported. A GPU by NVIDIA's own library, else the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import psutil

from driftloop.telemetry import Instruments

Observed = Iterable[tuple[float, Mapping[str, str]]]


class Cpu:
    """The process itself: share of one core since it was last asked, and resident memory."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._own = psutil.Process()
        self._now_s = now_s
        self._last = (now_s(), self._used_s())

    def _used_s(self) -> float:
        times = self._own.cpu_times()
        return float(times.user + times.system)

    def utilisation(self) -> Observed:
        """Cores used since the last call: 1 is a full one."""
        before_s, before_used_s = self._last
        self._last = (self._now_s(), self._used_s())
        passed_s = self._last[0] - before_s
        yield (self._last[1] - before_used_s) / passed_s if passed_s > 0 else 0.0, {"device": "cpu"}

    def memory(self) -> Observed:
        """Resident bytes."""
        yield float(self._own.memory_info().rss), {"device": "cpu"}


class Gpus:
    """Every GPU that the driver shows to this process."""

    def __init__(self, nvml: object) -> None:
        self._nvml = nvml
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self._handles)

    def utilisation(self) -> Observed:
        """Share of the driver's last sample during which a kernel ran, 0 to 1."""
        for number, handle in enumerate(self._handles):
            found = self._nvml.nvmlDeviceGetUtilizationRates(handle)  # type: ignore[attr-defined]
            yield found.gpu / 100.0, {"device": f"cuda:{number}"}

    def memory(self) -> Observed:
        """Bytes in use, of all processes."""
        for number, handle in enumerate(self._handles):
            yield float(self._nvml.nvmlDeviceGetMemoryInfo(handle).used), {"device": f"cuda:{number}"}  # type: ignore[attr-defined]


def training_device(wanted: str) -> Cpu | Gpus:
    """What is to be looked at: the GPUs, where trainer may use them and there are any."""
    if wanted != "cpu":
        import pynvml

        try:
            pynvml.nvmlInit()
            found = Gpus(pynvml)
        except pynvml.NVMLError:
            return Cpu()
        if len(found):
            return found
    return Cpu()


def observe_device(declared: Instruments, wanted: str) -> None:
    """Lets every export tell how the training device does. `wanted`: the setting `device`."""
    device = training_device(wanted)
    declared.observed("device_utilisation_ratio", device.utilisation)
    declared.observed("device_memory_bytes", device.memory)
