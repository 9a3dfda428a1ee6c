// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A guest without an engine: its memory, and calls of preview 1 by name.

#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <unistd.h>

#include "host_runner/base/unique_fd.hpp"
#include "host_runner/wasm/wasi/context.hpp"
#include "host_runner/wasm/wasi/preview1.hpp"

namespace host_runner::wasm::wasi::tests {

/// The numbers of the guest's errnos, as the specification has them.
enum GuestErrno : std::uint32_t {
    ok = 0,
    acces = 2,
    again = 6,
    badf = 8,
    busy = 10,
    connaborted = 13,
    connreset = 15,
    exist = 20,
    ilseq = 25,
    inval = 28,
    isdir = 31,
    loop = 32,
    mfile = 33,
    nametoolong = 37,
    noent = 44,
    nospc = 51,
    notconn = 53,
    notdir = 54,
    notempty = 55,
    notsock = 57,
    notsup = 58,
    overflow = 61,
    perm = 63,
    pipe = 64,
    spipe = 70,
    timedout = 73,
    /// No errno: what call() gives for a trap, plus the reason.
    trap = 1000,
};

constexpr std::uint32_t trapped(TrapReason reason) {
    return trap + static_cast<std::uint32_t>(reason);
}

class Guest {
public:
    /// Places in the memory that the calls below use.
    static constexpr std::uint32_t result = 8;
    static constexpr std::uint32_t second_result = 16;
    static constexpr std::uint32_t record = 64; ///< For stats, events.
    static constexpr std::uint32_t list = 1024; ///< For iovecs, subscriptions.
    static constexpr std::uint32_t text = 8192;
    static constexpr std::uint32_t second_text = 16384;
    static constexpr std::uint32_t buffer = 32768;
    static constexpr std::uint32_t memory_bytes = 4 * 65536;

    explicit Guest(ContextOptions options = {}) : memory_(memory_bytes) {
        auto made = Context::create(std::move(options));
        if (!made)
            throw std::runtime_error(made.error().describe());
        context = *std::move(made);
    }

    /// The errno, or trapped(reason).
    std::uint32_t call(std::string_view name, std::vector<std::uint64_t> arguments) {
        for (const auto& function : preview1_functions()) {
            if (function.name != name)
                continue;
            if (function.parameters.size() != arguments.size())
                throw std::runtime_error("wrong number of arguments for " + std::string(name));
            HostCall host_call{context.get(), memory_, arguments};
            const auto answer = function.call(host_call);
            return answer ? *answer : trapped(answer.error().reason);
        }
        throw std::runtime_error("no function " + std::string(name));
    }

    template <class T>
    T get(std::uint32_t at) const {
        T value{};
        std::memcpy(&value, &memory_.at(at), sizeof value);
        return value;
    }
    template <class T>
    void put(std::uint32_t at, T value) {
        std::memcpy(&memory_.at(at), &value, sizeof value);
    }
    void put_text(std::uint32_t at, std::string_view value) {
        std::memcpy(&memory_.at(at), value.data(), value.size());
    }
    std::string get_text(std::uint32_t at, std::size_t size) const {
        return {reinterpret_cast<const char*>(&memory_.at(at)), size};
    }
    std::uint32_t number() const {
        return get<std::uint32_t>(result);
    }

    /// One buffer of `size` bytes.
    void put_buffer(std::uint32_t size) {
        put(list, buffer);
        put(list + 4, size);
    }
    std::uint32_t write(std::uint32_t fd, std::string_view bytes) {
        put_text(buffer, bytes);
        put_buffer(static_cast<std::uint32_t>(bytes.size()));
        return call("fd_write", {fd, list, 1, result});
    }
    std::uint32_t read(std::uint32_t fd, std::uint32_t size) {
        put_buffer(size);
        return call("fd_read", {fd, list, 1, result});
    }
    /// What the last read or readlink gave.
    std::string got() const {
        return get_text(buffer, number());
    }
    /// A call on one path: name(fd, path...).
    std::uint32_t on_path(std::string_view name, std::uint32_t fd, std::string_view path) {
        put_text(text, path);
        return call(name, {fd, text, path.size()});
    }
    /// `what(from_fd, from, to_fd, to)` as path_rename has it.
    std::uint32_t rename(std::uint32_t from_fd, std::string_view from, std::uint32_t to_fd,
                         std::string_view to) {
        put_text(text, from);
        put_text(second_text, to);
        return call("path_rename", {from_fd, text, from.size(), to_fd, second_text, to.size()});
    }
    std::uint32_t link(std::uint32_t from_fd, std::string_view from, std::uint32_t to_fd,
                       std::string_view to, std::uint32_t lookup = 0) {
        put_text(text, from);
        put_text(second_text, to);
        return call("path_link",
                    {from_fd, lookup, text, from.size(), to_fd, second_text, to.size()});
    }
    std::uint32_t symlink(std::string_view target, std::uint32_t fd, std::string_view path) {
        put_text(text, target);
        put_text(second_text, path);
        return call("path_symlink", {text, target.size(), fd, second_text, path.size()});
    }
    std::uint32_t readlink(std::uint32_t fd, std::string_view path, std::uint32_t size = 4096) {
        put_text(text, path);
        return call("path_readlink", {fd, text, path.size(), buffer, size, result});
    }
    std::uint32_t stat(std::uint32_t fd, std::string_view path, std::uint32_t lookup = 0) {
        put_text(text, path);
        return call("path_filestat_get", {fd, lookup, text, path.size(), record});
    }
    static constexpr std::uint64_t reading = 2;
    static constexpr std::uint64_t writing = 64;
    std::uint32_t open(std::uint32_t fd, std::string_view path, std::uint64_t rights = reading,
                       std::uint32_t open_flags = 0, std::uint32_t lookup = 1,
                       std::uint32_t fd_flags = 0) {
        put_text(text, path);
        return call("path_open",
                    {fd, lookup, text, path.size(), open_flags, rights, rights, fd_flags, result});
    }
    std::uint32_t receive(std::uint32_t fd, std::uint32_t size, std::uint32_t flags = 0) {
        put_buffer(size);
        return call("sock_recv", {fd, list, 1, flags, result, second_result});
    }
    std::uint32_t send(std::uint32_t fd, std::string_view bytes) {
        put_text(buffer, bytes);
        put_buffer(static_cast<std::uint32_t>(bytes.size()));
        return call("sock_send", {fd, list, 1, 0, result});
    }
    void subscribe(std::uint32_t index, std::uint8_t type, std::uint32_t id,
                   std::uint64_t timeout = 0, std::uint16_t flags = 0) {
        const auto at = list + index * 48;
        put<std::uint64_t>(at, 100 + index);
        put<std::uint8_t>(at + 8, type);
        put<std::uint32_t>(at + 16, id);
        put<std::uint64_t>(at + 24, timeout);
        put<std::uint16_t>(at + 40, flags);
    }
    std::uint32_t poll(std::uint32_t count) {
        return call("poll_oneoff", {list, record, count, result});
    }
    std::uint16_t event_errno(std::uint32_t index = 0) const {
        return get<std::uint16_t>(record + index * 32 + 8);
    }

    /// From now on every call that has to wait traps.
    void let_time_pass() {
        context->set_deadline({.at = std::chrono::steady_clock::now(), .cancel_fd = -1});
    }
    void cancel() {
        cancel_.reset(::eventfd(1, EFD_CLOEXEC));
        context->set_deadline({.at = {}, .cancel_fd = cancel_.get()});
    }

    std::unique_ptr<Context> context;

private:
    std::vector<std::byte> memory_;
    UniqueFd cancel_;
};

/// Options with these files from 0 on.
template <class... Files>
ContextOptions with_files(Files... files) {
    ContextOptions options;
    (options.files.emplace_back(std::move(files)), ...);
    return options;
}

} // namespace host_runner::wasm::wasi::tests
