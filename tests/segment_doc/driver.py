

# What tests/segment_doc.rs adds to the printed program: one answer per line of input.
import sys

PATTERN = bytes(i % 251 for i in range(502))


def is_pattern(frame):
    begin = frame.seq * 31 % 251
    size = len(frame.pixels)
    return bytes(frame.pixels) == (PATTERN[begin : begin + 251] * (size // 251 + 1))[:size]


def say_frame(frame):
    if not is_pattern(frame):
        return f"frame {frame.seq} is torn or wrong"
    assert frame.age_s < 1e9, frame.age_s
    return f"{frame.seq} {frame.width} {frame.height} {frame.stride} {len(frame.pixels)}"


def many(ring):
    last = different = 0
    while different < 100:
        try:
            frame = ring.latest()
        except BlockingIOError:
            continue
        if not is_pattern(frame) or frame.seq < last:
            return f"frame {frame.seq} after {last} is torn or wrong"
        different += frame.seq > last
        last = frame.seq
    return f"many {different}"


def answer(ring, words):
    if words[0] == "wait":
        return "newer" if ring.wait(float(words[1])) else "timeout"
    if words[0] == "many":
        return many(ring)
    try:
        if words[0] == "lease":
            answer.lease = ring.lease()
            answer.frame = answer.lease.__enter__()
            return say_frame(answer.frame)
        if words[0] == "look":
            return "constant" if is_pattern(answer.frame) else "changed"
        if words[0] == "release":
            answer.lease.__exit__(None, None, None)
            return "valid"
        frame = ring.latest()
        return say_frame(frame) if frame else "none"
    except Revoked:
        return "revoked"
    except LookupError:
        return "none"
    except BlockingIOError:
        return "overtaken"
    except PermissionError:
        return "no leases"
    except ValueError:
        return "unusable"


ring = Ring(sys.argv[1], sys.argv[2])
print("attached", flush=True)
for line in sys.stdin:
    print(answer(ring, line.split()), flush=True)
