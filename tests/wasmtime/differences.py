# SPDX-License-Identifier: Apache-2.0
"""What compare.py may find: {reason: {case: {aspect: (ours, wasmtime's)}}}. docs/wasi.md says more about each reason."""

DIFFERENCES = {
    "names of descriptors": {
        "rust_process environment": {
            "stdout": ("GREETING=[hello = world]\nEMPTY=[]\nFD_COUNT=[3]\nFD_NAMES=[stdin:stdout:stderr]\n",
                       "GREETING=[hello = world]\nEMPTY=[]\n"),
        },
        "rust_calls process": {"environ_sizes_get": ("ok (2, 42)", "ok (0, 0)")},
    },
    "input": {
        "rust_process echo, with an input": {"stdout": ("0 bytes\n", "some\ninput\n11 bytes\n")},
    },
    "writing to the input": {
        "rust_calls descriptors": {"fd_write stdin": ("ok 2", "badf")},
        "rust_calls waiting": {"poll_oneoff, to write the input": ("ok user 8 ok type 2 flags 0;", "badf")},
    },
    "listeners": {
        "rust_listener": {
            "stdout": ("listening\nthe client got: HELLO WORLD 2 lines \na client with 2 lines\n", ""),
            "stderr": ("", "No listener in FD_NAMES"),
            "exit code": (0, 1),
        },
    },
    "results": {
        "unnamed_entry": {
            "stdout": ("", "5\n"),
            "stderr": ("", "warning: using `--invoke` with a function that returns values is experimental and may break in the future"),
        },
    },
    "modules that cannot be run": {
        "hosted": {"exit code": (126, 1)},
        "large_memory": {"exit code": (126, 1)},
        "missing_imports": {"exit code": (126, 1)},
        "start_calls": {"exit code": (126, 1)},
        "wrong_import": {"exit code": (126, 1)},
    },
    "modules without one entry": {
        "both_entries": {"exit code": (126, 0)},
        "deeds": {"exit code": (126, 0)},
        "reactor": {"exit code": (126, 0)},
        "vectors": {"exit code": (126, 0)},
    },
    "proposals": {
        "two_memories": {"exit code": (126, 0)},
    },
    "exit codes from 126 on": {
        "rust_process exit 126": {"exit code": (126, 1)},
        "rust_process exit 255": {"exit code": (255, 1)},
        "rust_process exit -1": {"exit code": (255, 1)},
    },
    "limits": {
        "rust_process recurse": {"exit code": (123, 134)},
        "deeds_wasi spin": {"exit code": (124, 134)},
        "deeds_wasi sleep": {"exit code": (124, 134)},
        "deeds_wasi exhaust": {"exit code": (137, 134)},
        "start_spins": {"exit code": (124, 134)},
    },
    "bad pointers": {
        "rust_calls outside": {"exit code": (134, 1)},
        "rust_calls unaligned": {"exit code": (134, 1)},
    },
    "unknown values": {
        "rust_calls unknown clock": {"clock": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown advice": {"advice": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown whence": {"whence": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown flags": {"flags": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown times": {"times": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown lookup": {"lookup": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown way": {"way": ("inval", None), "exit code": (0, 1)},
        "rust_calls unknown rights": {"rights": ("ok", None), "exit code": (0, 1)},
        "rust_calls unknown clock_to_wait_for": {"clock_to_wait_for": ("ok", "inval")},
    },
    "errors of calls that do not fit": {
        "rust_files": {"read a folder": ("Uncategorized, errno Some(31)", "Uncategorized, errno Some(8)")},
        "rust_calls descriptors": {
            "fd_advise stdin": ("spipe", "badf"),
            "fd_allocate stdin": ("notsup", "badf"),
            "fd_fdstat_set_rights stdin": ("notsup", "badf"),
            "fd_readdir stdin": ("notdir", "badf"),
            "fd_pwrite stdin": ("spipe", "badf"),
            "fd_advise stdout": ("spipe", "badf"),
            "fd_allocate stdout": ("notsup", "badf"),
            "fd_fdstat_set_rights stdout": ("notsup", "badf"),
            "fd_readdir stdout": ("notdir", "badf"),
            "fd_pread stdout": ("spipe", "badf"),
            "fd_allocate root": ("notsup", "badf"),
            "fd_read root": ("isdir", "badf"),
            "fd_pread root": ("isdir", "badf"),
            "fd_readdir file": ("notdir", "badf"),
            "fd_readdir reader": ("notdir", "badf"),
            "fd_filestat_set_size reader": ("perm", "inval"),
            "fd_readdir writer": ("notdir", "badf"),
            "fd_allocate folder": ("notsup", "badf"),
            "fd_read folder": ("isdir", "badf"),
            "fd_pread folder": ("isdir", "badf"),
        },
        "rust_calls opening": {"path_open, in stdin": ("notdir", "badf")},
    },
    "rights": {
        "rust_calls descriptors": {
            "fd_fdstat_get stdin": ('ok "type 0 flags 0 rights 0x820004a 0x0"', 'ok "type 0 flags 0 rights 0x2 0x2"'),
            "fd_fdstat_get stdout": ('ok "type 0 flags 0 rights 0x8200048 0x0"', 'ok "type 0 flags 0 rights 0x40 0x40"'),
            "fd_fdstat_get root": ('ok "type 3 flags 0 rights 0x7bffe11 0xfffffff"', 'ok "type 3 flags 0 rights 0x7b7fe00 0xff7ffff"'),
            "fd_fdstat_get file": ('ok "type 4 flags 0 rights 0x8e001ff 0x0"', 'ok "type 4 flags 0 rights 0x3fffffff 0x3fffffff"'),
            "fd_fdstat_get reader": ('ok "type 4 flags 0 rights 0x82000bf 0x0"', 'ok "type 4 flags 0 rights 0x3fffffbf 0x3fffffbf"'),
            "fd_fdstat_get writer": ('ok "type 4 flags 0 rights 0x8e001fd 0x0"', 'ok "type 4 flags 0 rights 0x3fffbffd 0x3fffbffd"'),
            "fd_fdstat_get folder": ('ok "type 3 flags 0 rights 0x7bffe11 0xfffffff"', 'ok "type 3 flags 0 rights 0x3fb7ffbb 0x3fb7ffbb"'),
        },
    },
    "flags of streams and folders": {
        "rust_calls descriptors": {
            "fd_fdstat_set_flags stdin, append": ("ok", "badf"),
            "fd_fdstat_set_flags stdin, dsync": ("inval", "badf"),
            "fd_fdstat_set_flags stdin, nonblock": ("ok", "badf"),
            "fd_fdstat_set_flags stdin, rsync": ("inval", "badf"),
            "fd_fdstat_set_flags stdin, sync": ("inval", "badf"),
            "fd_fdstat_set_flags stdin, none": ("ok", "badf"),
            "fd_fdstat_set_flags stdout, append": ("ok", "badf"),
            "fd_fdstat_set_flags stdout, dsync": ("inval", "badf"),
            "fd_fdstat_set_flags stdout, nonblock": ("ok", "badf"),
            "fd_fdstat_set_flags stdout, rsync": ("inval", "badf"),
            "fd_fdstat_set_flags stdout, sync": ("inval", "badf"),
            "fd_fdstat_set_flags stdout, none": ("ok", "badf"),
            "fd_fdstat_set_flags root, append": ("ok", "badf"),
            "fd_fdstat_set_flags root, dsync": ("inval", "badf"),
            "fd_fdstat_set_flags root, nonblock": ("ok", "badf"),
            "fd_fdstat_set_flags root, rsync": ("inval", "badf"),
            "fd_fdstat_set_flags root, sync": ("inval", "badf"),
            "fd_fdstat_set_flags root, none": ("ok", "badf"),
            "fd_fdstat_set_flags folder, append": ("ok", "badf"),
            "fd_fdstat_set_flags folder, dsync": ("inval", "badf"),
            "fd_fdstat_set_flags folder, nonblock": ("ok", "badf"),
            "fd_fdstat_set_flags folder, rsync": ("inval", "badf"),
            "fd_fdstat_set_flags folder, sync": ("inval", "badf"),
            "fd_fdstat_set_flags folder, none": ("ok", "badf"),
        },
    },
    "folders as files": {
        "rust_calls descriptors": {
            "fd_sync root": ("ok", "badf"),
            "fd_datasync root": ("ok", "badf"),
            "fd_filestat_set_times root": ("ok", "badf"),
            "fd_sync folder": ("ok", "badf"),
            "fd_datasync folder": ("ok", "badf"),
        },
    },
    "SYNC": {
        "rust_calls opening": {
            "path_open, dsync": ("ok", "notsup"),
            "path_open, rsync": ("ok", "notsup"),
            "path_open, sync": ("ok", "notsup"),
        },
    },
    "devices and FIFOs": {
        "rust_calls opening": {"path_open, a FIFO": ("notsup", "ok")},
    },
    "names that are not UTF-8": {
        "rust_calls descriptors": {
            "fd_readdir, a name that is not UTF-8": ('ok ["3 .", "3 ..", "4 plain"]', "ilseq"),
            "fd_readdir, no room": ("ok 4", "ilseq"),
            "fd_readdir, an odd cookie": ("ok", "ilseq"),
        },
        "deeds_wasi list /odd": {"stdout": ("plain\n", ""), "stderr": ("", "/odd: Illegal byte sequence"), "exit code": (0, 1)},
    },
    "removing while reading": {
        "rust_files": {"remove them while reading": ("()", "Uncategorized, errno Some(55)")},
    },
    "a slash at the end": {
        "rust_calls paths": {
            "path_remove_directory, a slash": ("ok", "inval"),
            "path_filestat_get, a slash": ("notdir", "ok 4"),
            "file slashed, d": (False, True),
        },
    },
    "several buffers": {
        "rust_calls descriptors": {"fd_read, two buffers": ('ok (5, "ababa")', 'ok (2, "ab\\0\\0\\0")')},
    },
    "size of a call": {
        "rust_calls descriptors": {
            "fd_read, 1025 buffers": ("inval", "ok"),
            "fd_write, 1025 buffers": ("inval", "ok"),
            "fd_write, 3 MiB": ("ok 1048576", "ok 3145728"),
        },
    },
    "offsets beyond 63 bits": {
        "rust_calls descriptors": {"fd_seek, far": ("overflow", "ok 9223372036854775817"), "fd_advise, far": ("inval", "ok")},
    },
    "waiting": {
        "rust_calls waiting": {
            "poll_oneoff, a clock of the processor": ("ok user 7 badf type 0 flags 0;", "ok user 7 ok type 0 flags 0;"),
            "poll_oneoff, a file": ("ok user 8 ok type 1 flags 0; user 8 ok type 2 flags 0;", "ok user 8 ok type 2 flags 0;"),
            "poll_oneoff, a folder": ("ok user 8 badf type 1 flags 0;", "badf"),
            "poll_oneoff, none": ("ok user 8 badf type 1 flags 0;", "badf"),
            "poll_oneoff, to read the output": ("ok user 7 ok type 0 flags 0;", "badf"),
        },
    },
}
