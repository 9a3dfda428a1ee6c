// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/wasi/preview1.hpp"

#include <array>
#include <exception>
#include <new>
#include <utility>

#include "calls.hpp"

namespace host_runner::wasm::wasi {

namespace {

using Implementation = Answer<void> (*)(Call& call);

HostResult run(Implementation implementation, HostCall& host_call, std::size_t parameter_count) {
    auto* context = static_cast<Context*>(host_call.state);
    if (context == nullptr || host_call.arguments.size() != parameter_count)
        return tl::unexpected<Trap>(Trap{TrapReason::host_failure, "A WASI call has no context"});
    Call call{context->state(), GuestMemory(host_call.memory), host_call.arguments};
    auto answer = implementation(call);
    if (answer)
        return static_cast<std::uint32_t>(Errno::success);
    if (answer.error().trap)
        return tl::unexpected<Trap>(*std::move(answer.error().trap));
    return static_cast<std::uint32_t>(answer.error().code);
}

/// The border that no exception crosses: wasm frames cannot be unwound.
template <Implementation implementation, std::size_t parameter_count>
HostResult enter(HostCall& host_call) noexcept {
    try {
        return run(implementation, host_call, parameter_count);
    } catch (...) {
        // Only the lack of memory comes here. An empty message needs none.
        return tl::unexpected<Trap>(Trap{TrapReason::host_failure, {}});
    }
}

template <ValueType... types>
constexpr std::array<ValueType, sizeof...(types)> parameter_list{types...};

template <Implementation implementation, ValueType... types>
constexpr HostFunction function(std::string_view name) {
    return {"wasi_snapshot_preview1", name,
            std::span<const ValueType>(parameter_list<types...>.data(), sizeof...(types)), true,
            &enter<implementation, sizeof...(types)>};
}

constexpr HostFunction without_result(HostFunction declared) {
    declared.returns_i32 = false;
    return declared;
}

constexpr auto i = ValueType::i32;
constexpr auto l = ValueType::i64;

constexpr std::array functions{
    function<calls::args_get, i, i>("args_get"),
    function<calls::args_sizes_get, i, i>("args_sizes_get"),
    function<calls::clock_res_get, i, i>("clock_res_get"),
    function<calls::clock_time_get, i, l, i>("clock_time_get"),
    function<calls::environ_get, i, i>("environ_get"),
    function<calls::environ_sizes_get, i, i>("environ_sizes_get"),
    function<calls::fd_advise, i, l, l, i>("fd_advise"),
    function<calls::fd_allocate, i, l, l>("fd_allocate"),
    function<calls::fd_close, i>("fd_close"),
    function<calls::fd_datasync, i>("fd_datasync"),
    function<calls::fd_fdstat_get, i, i>("fd_fdstat_get"),
    function<calls::fd_fdstat_set_flags, i, i>("fd_fdstat_set_flags"),
    function<calls::fd_fdstat_set_rights, i, l, l>("fd_fdstat_set_rights"),
    function<calls::fd_filestat_get, i, i>("fd_filestat_get"),
    function<calls::fd_filestat_set_size, i, l>("fd_filestat_set_size"),
    function<calls::fd_filestat_set_times, i, l, l, i>("fd_filestat_set_times"),
    function<calls::fd_pread, i, i, i, l, i>("fd_pread"),
    function<calls::fd_prestat_dir_name, i, i, i>("fd_prestat_dir_name"),
    function<calls::fd_prestat_get, i, i>("fd_prestat_get"),
    function<calls::fd_pwrite, i, i, i, l, i>("fd_pwrite"),
    function<calls::fd_read, i, i, i, i>("fd_read"),
    function<calls::fd_readdir, i, i, i, l, i>("fd_readdir"),
    function<calls::fd_renumber, i, i>("fd_renumber"),
    function<calls::fd_seek, i, l, i, i>("fd_seek"),
    function<calls::fd_sync, i>("fd_sync"),
    function<calls::fd_tell, i, i>("fd_tell"),
    function<calls::fd_write, i, i, i, i>("fd_write"),
    function<calls::path_create_directory, i, i, i>("path_create_directory"),
    function<calls::path_filestat_get, i, i, i, i, i>("path_filestat_get"),
    function<calls::path_filestat_set_times, i, i, i, i, l, l, i>("path_filestat_set_times"),
    function<calls::path_link, i, i, i, i, i, i, i>("path_link"),
    function<calls::path_open, i, i, i, i, i, l, l, i, i>("path_open"),
    function<calls::path_readlink, i, i, i, i, i, i>("path_readlink"),
    function<calls::path_remove_directory, i, i, i>("path_remove_directory"),
    function<calls::path_rename, i, i, i, i, i, i>("path_rename"),
    function<calls::path_symlink, i, i, i, i, i>("path_symlink"),
    function<calls::path_unlink_file, i, i, i>("path_unlink_file"),
    function<calls::poll_oneoff, i, i, i, i>("poll_oneoff"),
    without_result(function<calls::proc_exit, i>("proc_exit")),
    function<calls::proc_raise, i>("proc_raise"),
    function<calls::random_get, i, i>("random_get"),
    function<calls::sched_yield>("sched_yield"),
    function<calls::sock_accept, i, i, i>("sock_accept"),
    function<calls::sock_recv, i, i, i, i, i, i>("sock_recv"),
    function<calls::sock_send, i, i, i, i, i>("sock_send"),
    function<calls::sock_shutdown, i, i>("sock_shutdown"),
};
static_assert(functions.size() == 46);

} // namespace

std::span<const HostFunction> preview1_functions() noexcept {
    return functions;
}

} // namespace host_runner::wasm::wasi
