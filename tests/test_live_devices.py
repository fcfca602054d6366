"""The terminal's line of GPUs and engines: what they do now, and what is not known of it."""

from loadtest import live
from loadtest.progress import DevicesNow
from tests.test_live import running, shown


def test_what_devices_do_stands_in_one_quiet_line_and_what_is_not_provided_is_not_zero() -> None:
    devices = [
        DevicesNow(target="acme", utilization=0.873, power_w=612, kv_cache=0.451, queue=12),
        DevicesNow(target="budget", utilization=0.0, kv_cache=0.1),
        DevicesNow(target="other"),
    ]
    [line] = [line for line in shown(running(devices=devices), 240).splitlines() if line.startswith("GPUs")]
    assert line.rstrip() == (
        "GPUs: acme utilization 87%, power 612 W, KV cache 45%, queue 12 · "
        "budget utilization 0%, KV cache 10%, power and queue not provided · other not provided"
    )
    assert "GPUs" not in shown(running())
    [logged] = live.lines(running(devices=devices))
    assert logged.endswith("; GPUs: utilization 87%, power 612 W, KV cache 45%, queue 12")


def test_what_is_too_old_and_who_does_not_answer_is_said() -> None:
    old = DevicesNow(target="acme", kv_cache=0.5, stale_s=31.24)
    gone = DevicesNow(target="budget", queue=3, failed={"dcgm": "timeout"})
    told = shown(running(devices=[old, gone]), 240)
    assert "acme KV cache 50%, the last values are 31.2 s old" in told
    assert "budget queue 3, dcgm does not answer: timeout" in told
