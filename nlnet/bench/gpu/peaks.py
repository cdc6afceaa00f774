"""The rate of products that the tensor cores of a device can reach, from its data sheet."""

# Words of the device's name, and TFLOP/s in bfloat16 and float16 with sums in float32; the first
# row that fits counts. NVIDIA's data sheets print the rates of Hopper and Blackwell, and of Ada's
# professional cards, with sparsity: twice these.
PEAKS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("GB200",), 2500),
    (("B200",), 2250),
    (("GH200",), 989),
    (("H200", "NVL"), 836),
    (("H200",), 989),
    (("H100", "NVL"), 835),
    (("H100", "PCIe"), 756),
    (("H100",), 989),
    (("A100",), 312),
    (("A10",), 125),
    (("A30",), 165),
    (("A40",), 150),
    (("L40S",), 362),
    (("L40",), 181),
    (("L4",), 121),
    (("RTX 4090",), 165),
    (("RTX 3090",), 71),
)


def peak_flops(device: str, precision: str) -> float | None:
    """Operations a second of a device in a precision of the trainer; None if it is not known.

    float32 is TF32, whose rate is half of that in 16 bits on all of these devices.
    """
    words = device.replace("-", " ").split()
    for names, tflops in PEAKS:
        if all(set(name.split()) <= set(words) for name in names):
            return tflops * 1e12 * (0.5 if precision == "fp32" else 1.0)
    return None
