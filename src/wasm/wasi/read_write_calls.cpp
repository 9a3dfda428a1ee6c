// SPDX-License-Identifier: Apache-2.0
// fd_read, fd_write and their forms with an offset.
#include <algorithm>
#include <cerrno>
#include <limits>

#include <sys/uio.h>
#include <unistd.h>

#include "buffers.hpp"
#include "calls.hpp"
#include "stream_io.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

constexpr std::uint64_t max_offset = std::numeric_limits<std::int64_t>::max();

std::size_t total_of(std::span<const iovec> buffers) {
    std::size_t sum = 0;
    for (const auto& buffer : buffers)
        sum += buffer.iov_len;
    return sum;
}

template <class Operation>
Answer<std::size_t> transfer(Operation operation) {
    for (;;) {
        const ssize_t count = operation();
        if (count >= 0)
            return static_cast<std::size_t>(count);
        if (errno != EINTR)
            return refuse_errno();
    }
}

Answer<std::size_t> read_at(const RegularFile& file, std::span<const iovec> buffers,
                            std::uint64_t offset) {
    if (!file.can_read)
        return refuse(Errno::badf);
    if (offset > max_offset)
        return refuse(Errno::inval);
    return transfer([&] {
        return ::preadv(file.fd.get(), buffers.data(), static_cast<int>(buffers.size()),
                        static_cast<off_t>(offset));
    });
}

Answer<std::size_t> write_at(const RegularFile& file, std::span<const iovec> buffers,
                             std::uint64_t offset) {
    if (!file.can_write)
        return refuse(Errno::badf);
    if (offset > max_offset)
        return refuse(Errno::inval);
    return transfer([&] {
        return ::pwritev(file.fd.get(), buffers.data(), static_cast<int>(buffers.size()),
                         static_cast<off_t>(offset));
    });
}

/// At the end of the file, wherever it is by now; moves the offset there.
Answer<std::size_t> append(RegularFile& file, std::span<const iovec> buffers) {
    if (!file.can_write)
        return refuse(Errno::badf);
    constexpr off_t moving_the_kernels_offset = -1;
    WASI_TRY(const auto count, transfer([&] {
                 return ::pwritev2(file.fd.get(), buffers.data(), static_cast<int>(buffers.size()),
                                   moving_the_kernels_offset, RWF_APPEND);
             }));
    if (const off_t end = ::lseek(file.fd.get(), 0, SEEK_CUR); end >= 0)
        file.offset = static_cast<std::uint64_t>(end);
    return count;
}

struct Reader {
    const CallDeadline& deadline;
    std::span<iovec> buffers;
    Blocking blocking;

    Answer<std::size_t> operator()(NullFile& /*file*/) const {
        return 0;
    }
    Answer<std::size_t> operator()(InputBytes& file) const {
        std::size_t sum = 0;
        for (const auto& buffer : buffers) {
            const auto piece =
                std::string_view(file.bytes).substr(file.offset).substr(0, buffer.iov_len);
            std::copy(piece.begin(), piece.end(), static_cast<char*>(buffer.iov_base));
            file.offset += piece.size();
            sum += piece.size();
        }
        return sum;
    }
    Answer<std::size_t> operator()(CaptureOut& /*file*/) const {
        return refuse(Errno::badf);
    }
    Answer<std::size_t> operator()(HostStream& file) const {
        return read_host(deadline, file.fd.get(), buffers, blocking);
    }
    Answer<std::size_t> operator()(Folder& /*file*/) const {
        return refuse(Errno::isdir);
    }
    Answer<std::size_t> operator()(RegularFile& file) const {
        WASI_TRY(const auto count, read_at(file, buffers, file.offset));
        file.offset += count;
        return count;
    }
    Answer<std::size_t> operator()(Listener& /*file*/) const {
        return refuse(Errno::notconn);
    }
    Answer<std::size_t> operator()(Stream& file) const {
        return receive(deadline, file, buffers, {blocking});
    }
};

Answer<std::size_t> capture(CaptureOut& file, std::span<const iovec> buffers) {
    std::size_t sum = 0;
    for (const auto& buffer : buffers) {
        std::size_t taken = 0;
        try {
            taken = file.output->write(file.stream,
                                       {static_cast<const char*>(buffer.iov_base), buffer.iov_len});
        } catch (...) { // the sink is not ours; what came before has been taken
            return sum > 0 ? Answer<std::size_t>(sum) : refuse(Errno::io);
        }
        sum += taken;
        if (taken < buffer.iov_len)
            break;
    }
    if (sum == 0 && !buffers.empty())
        return refuse(Errno::nospc);
    return sum;
}

struct Writer {
    const CallDeadline& deadline;
    std::span<iovec> buffers;
    Blocking blocking;
    bool appending;

    Answer<std::size_t> operator()(NullFile& /*file*/) const {
        return total_of(buffers);
    }
    Answer<std::size_t> operator()(InputBytes& /*file*/) const {
        return refuse(Errno::badf);
    }
    Answer<std::size_t> operator()(CaptureOut& file) const {
        return capture(file, buffers);
    }
    Answer<std::size_t> operator()(HostStream& file) const {
        return write_host(deadline, file.fd.get(), buffers, blocking);
    }
    Answer<std::size_t> operator()(Folder& /*file*/) const {
        return refuse(Errno::badf);
    }
    Answer<std::size_t> operator()(RegularFile& file) const {
        if (appending)
            return append(file, buffers);
        WASI_TRY(const auto count, write_at(file, buffers, file.offset));
        file.offset += count;
        return count;
    }
    Answer<std::size_t> operator()(Listener& /*file*/) const {
        return refuse(Errno::notconn);
    }
    Answer<std::size_t> operator()(Stream& file) const {
        return send(deadline, file, buffers, blocking);
    }
};

Blocking blocking_of(const Entry& entry) {
    return entry.is_nonblocking() ? Blocking::no : Blocking::yes;
}

/// What a call with an offset works on: SPIPE for streams, `for_folder` for directories.
Answer<RegularFile*> seekable(Entry& entry, Errno for_folder) {
    if (auto* const file = entry.as<RegularFile>())
        return file;
    return refuse(entry.as<Folder>() != nullptr ? for_folder : Errno::spipe);
}

} // namespace

Answer<void> fd_read(Call& call) {
    WASI_TRY(const auto got, call.memory.slot<std::uint32_t>(call.u32(3)));
    WASI_TRY(const auto buffers, guest_buffers(call, 1, 2));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(const auto count,
             std::visit(Reader{call.state.deadline, buffers, blocking_of(*entry)}, entry->object));
    got.set(static_cast<std::uint32_t>(count));
    return {};
}

Answer<void> fd_write(Call& call) {
    WASI_TRY(const auto put, call.memory.slot<std::uint32_t>(call.u32(3)));
    WASI_TRY(const auto buffers, guest_buffers(call, 1, 2));
    WASI_TRY(auto* const entry, call.file(0));
    const bool appending = (entry->flags & layout::fd_flags::append) != 0;
    WASI_TRY(const auto count,
             std::visit(Writer{call.state.deadline, buffers, blocking_of(*entry), appending},
                        entry->object));
    put.set(static_cast<std::uint32_t>(count));
    return {};
}

Answer<void> fd_pread(Call& call) {
    WASI_TRY(const auto got, call.memory.slot<std::uint32_t>(call.u32(4)));
    WASI_TRY(const auto buffers, guest_buffers(call, 1, 2));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(auto* const file, seekable(*entry, Errno::isdir));
    WASI_TRY(const auto count, read_at(*file, buffers, call.u64(3)));
    got.set(static_cast<std::uint32_t>(count));
    return {};
}

Answer<void> fd_pwrite(Call& call) {
    WASI_TRY(const auto put, call.memory.slot<std::uint32_t>(call.u32(4)));
    WASI_TRY(const auto buffers, guest_buffers(call, 1, 2));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(auto* const file, seekable(*entry, Errno::badf));
    WASI_TRY(const auto count, write_at(*file, buffers, call.u64(3)));
    put.set(static_cast<std::uint32_t>(count));
    return {};
}

} // namespace host_runner::wasm::wasi::calls
