"""Files as PyTorch saves them, written without PyTorch: pickles by hand, and what holds them."""

import io
import os
import pickle
import struct
import zipfile


class Payload:
    """What a pickle may do when it is opened: here, make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def unicode(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def tensor_program(key, values, old, strides=None, offset=0, shape=None):
    """torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())."""
    kind = {"f": "FloatStorage", "i": "LongStorage"}[values.dtype.kind]
    strides = [n // values.itemsize for n in values.strides] if strides is None else strides
    shape = values.shape if shape is None else shape
    storage = b"(" + unicode("storage") + b"ctorch\n" + kind.encode() + b"\n" + unicode(key)
    storage += unicode("cpu") + integer(values.size) + (b"N" if old else b"") + b"tQ"
    numbers = b"".join(b"(" + b"".join(map(integer, each)) + b"t" for each in (shape, strides))
    hooks = b"ccollections\nOrderedDict\n)R"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage + integer(offset) + numbers + b"\x89" + hooks + b"tR"


def state_program(tensors, old, **changes):
    """An OrderedDict of tensors, with the attributes that PyTorch gives it."""
    items = b"".join(
        unicode(name) + tensor_program(str(key), values, old, **changes)
        for key, (name, values) in enumerate(tensors.items())
    )
    metadata = b"}q\x00" + unicode("_metadata") + b"ccollections\nOrderedDict\n)Rsb"
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u" + metadata + b"."


def zipped(program, tensors):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for key, values in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", storage_bytes(values))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def streamed(program, tensors):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = [0x1950A86A20F9469CFC6C, 1001, system]
    keys = pickle.dumps([str(key) for key in range(len(tensors))], protocol=2)
    parts = [*(pickle.dumps(each, protocol=2) for each in head), program, keys]
    parts += [struct.pack("<q", each.size) + storage_bytes(each) for each in tensors.values()]
    return b"".join(parts)


def storage_bytes(values):
    return values.tobytes(order="A")  # a transposed tensor is a view of its storage


FORMATS = {"zip": (zipped, False), "stream": (streamed, True)}


def torch_bytes(tensors, form, **changes):
    write, old = FORMATS[form]
    return write(state_program(tensors, old, **changes), tensors)
