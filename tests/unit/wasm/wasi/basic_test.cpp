// SPDX-License-Identifier: Apache-2.0
// Arguments, clocks, end, random numbers, descriptors, streams, captures, poll.
#include <set>

#include <gmock/gmock.h>

#include "fakes/raw_peer.hpp"
#include "guest.hpp"

namespace host_runner::wasm::wasi::tests {
namespace {

using host_runner::tests::connected_pair;

constexpr auto out = OutputStream::standard_output;
constexpr auto err = OutputStream::standard_error;
constexpr std::uint32_t outside = Guest::memory_bytes;

TEST(WasiFunctions, are_the_46_in_order) {
    std::set<std::string_view> names;
    for (const auto& function : preview1_functions()) {
        EXPECT_EQ(function.module, "wasi_snapshot_preview1");
        EXPECT_TRUE(names.empty() || *names.rbegin() < function.name) << function.name;
        names.insert(function.name);
        EXPECT_EQ(function.returns_i32, function.name != "proc_exit");
    }
    EXPECT_EQ(names.size(), 46U);
}

TEST(WasiFunctions, need_a_context_and_all_arguments) {
    for (const auto& function : preview1_functions()) {
        HostCall call;
        const auto answer = function.call(call);
        ASSERT_FALSE(answer) << function.name;
        EXPECT_EQ(answer.error().reason, TrapReason::host_failure);
    }
}

TEST(WasiFunctions, survive_a_module_without_memory) {
    Guest guest(with_files(NullFile{}));
    for (const auto& function : preview1_functions()) {
        const std::vector<std::uint64_t> zeros(function.parameters.size());
        HostCall call{guest.context.get(), {}, zeros};
        static_cast<void>(function.call(call));
    }
}

TEST(WasiFunctions, trap_on_every_pointer_outside_or_misaligned) {
    Guest guest(with_files(NullFile{}));
    for (const auto* name : {"args_sizes_get", "environ_sizes_get"}) {
        EXPECT_EQ(guest.call(name, {outside, 0}), trapped(TrapReason::out_of_bounds));
        EXPECT_EQ(guest.call(name, {0, outside - 3}), trapped(TrapReason::out_of_bounds));
        EXPECT_EQ(guest.call(name, {2, 8}), trapped(TrapReason::out_of_bounds));
    }
    for (const auto* name : {"fd_fdstat_get", "fd_filestat_get", "fd_prestat_get"}) {
        EXPECT_EQ(guest.call(name, {0, 0xffffffffU}), trapped(TrapReason::out_of_bounds)) << name;
        EXPECT_EQ(guest.call(name, {0, 2}), trapped(TrapReason::out_of_bounds)) << name;
    }
    EXPECT_EQ(guest.call("random_get", {1, 0xffffffffU}), trapped(TrapReason::out_of_bounds));
    EXPECT_EQ(guest.call("random_get", {outside, 0}), ok);
    for (const auto* name : {"fd_read", "fd_write"}) {
        EXPECT_EQ(guest.call(name, {0, 0, 0xffffffffU, 8}), trapped(TrapReason::out_of_bounds));
        EXPECT_EQ(guest.call(name, {0, outside - 4, 1, 8}), trapped(TrapReason::out_of_bounds));
        guest.put(Guest::list, Guest::memory_bytes - 1);
        guest.put(Guest::list + 4, 2U);
        EXPECT_EQ(guest.call(name, {0, Guest::list, 1, 8}), trapped(TrapReason::out_of_bounds));
        EXPECT_EQ(guest.call(name, {0, Guest::list, 2000, 8}), inval);
    }
    EXPECT_EQ(guest.call("poll_oneoff", {0, 0, 0x10000000U, 8}),
              trapped(TrapReason::out_of_bounds));
}

TEST(WasiProcess, gives_arguments_and_environment) {
    ContextOptions options;
    options.arguments = {"main.wasm", "", "ä"};
    options.environment = {{"A", "1"}, {"EMPTY", ""}};
    Guest guest(std::move(options));
    EXPECT_EQ(guest.call("args_sizes_get", {Guest::result, Guest::second_result}), ok);
    EXPECT_EQ(guest.number(), 3U);
    EXPECT_EQ(guest.get<std::uint32_t>(Guest::second_result), 14U);
    EXPECT_EQ(guest.call("args_get", {Guest::list, Guest::buffer}), ok);
    EXPECT_EQ(guest.get_text(Guest::buffer, 14), std::string("main.wasm\0\0ä\0", 14));
    EXPECT_EQ(guest.get<std::uint32_t>(Guest::list + 8), Guest::buffer + 11);
    EXPECT_EQ(guest.call("environ_sizes_get", {Guest::result, Guest::second_result}), ok);
    EXPECT_EQ(guest.get<std::uint32_t>(Guest::second_result), 11U);
    EXPECT_EQ(guest.call("environ_get", {Guest::list, Guest::buffer}), ok);
    EXPECT_EQ(guest.get_text(Guest::buffer, 11), std::string("A=1\0EMPTY=\0", 11));
    EXPECT_EQ(guest.call("args_get", {Guest::list, outside - 5}),
              trapped(TrapReason::out_of_bounds));
}

TEST(WasiProcess, refuses_what_a_guest_could_not_read) {
    const auto refused = [](ContextOptions options) {
        const auto made = Context::create(std::move(options));
        return !made && made.error().code == ErrorCode::invalid_argument;
    };
    EXPECT_TRUE(refused({.arguments = {std::string("a\0b", 3)}}));
    EXPECT_TRUE(refused({.arguments = {"\xff"}}));
    EXPECT_TRUE(refused({.environment = {{"A=B", ""}}}));
    EXPECT_TRUE(refused({.environment = {{"", ""}}}));
    EXPECT_TRUE(refused({.arguments = {std::string((std::size_t{1} << 20U) + 1, 'a')}}));
    EXPECT_TRUE(refused({.max_open_files = 0}));
    EXPECT_TRUE(refused(with_files(HostStream{})));
    EXPECT_TRUE(refused(with_files(CaptureOut{})));
}

TEST(WasiProcess, exits_with_its_code) {
    Guest guest;
    EXPECT_FALSE(guest.context->exit_code());
    EXPECT_EQ(guest.call("proc_exit", {300}), trapped(TrapReason::exit));
    EXPECT_EQ(guest.context->exit_code(), 300U);
    EXPECT_EQ(guest.call("proc_raise", {6}), notsup);
}

TEST(WasiProcess, gives_random_bytes_until_the_deadline) {
    Guest guest;
    EXPECT_EQ(guest.call("random_get", {Guest::buffer, 70'000}), ok);
    EXPECT_NE(guest.get_text(Guest::buffer + 69'900, 100), std::string(100, '\0'));
    EXPECT_EQ(guest.call("sched_yield", {}), ok);
    guest.let_time_pass();
    EXPECT_EQ(guest.call("random_get", {Guest::buffer, 1}), trapped(TrapReason::interrupted));
    EXPECT_EQ(guest.call("sched_yield", {}), trapped(TrapReason::interrupted));
    guest.cancel();
    EXPECT_EQ(guest.call("sched_yield", {}), trapped(TrapReason::interrupted));
}

TEST(WasiClocks, have_two) {
    Guest guest;
    EXPECT_EQ(guest.call("clock_time_get", {0, 0, Guest::result}), ok);
    EXPECT_GT(guest.get<std::uint64_t>(Guest::result), 1'600'000'000'000'000'000U);
    EXPECT_EQ(guest.call("clock_time_get", {1, 0, Guest::result}), ok);
    EXPECT_EQ(guest.call("clock_res_get", {1, Guest::result}), ok);
    EXPECT_GT(guest.get<std::uint64_t>(Guest::result), 0U);
    for (const auto id : {2U, 3U}) {
        EXPECT_EQ(guest.call("clock_time_get", {id, 0, Guest::result}), badf);
        EXPECT_EQ(guest.call("clock_res_get", {id, Guest::result}), badf);
    }
    EXPECT_EQ(guest.call("clock_time_get", {4, 0, Guest::result}), inval);
    EXPECT_EQ(guest.call("clock_res_get", {4, Guest::result}), inval);
}

TEST(WasiDescriptors, unknown_numbers_are_badf_in_every_function) {
    Guest guest(with_files(NullFile{}));
    for (const std::uint32_t fd : {1U, 0xffffffffU}) {
        for (const auto& function : preview1_functions()) {
            const bool takes_fd =
                function.name.starts_with("fd_") || function.name.starts_with("sock_") ||
                (function.name.starts_with("path_") && function.name != "path_symlink");
            if (!takes_fd)
                continue;
            std::vector<std::uint64_t> arguments(function.parameters.size());
            arguments[0] = fd;
            EXPECT_EQ(guest.call(function.name, arguments), badf) << function.name;
        }
        EXPECT_EQ(guest.symlink("a", fd, "b"), badf);
    }
}

TEST(WasiDescriptors, close_frees_and_renumber_moves) {
    auto output = std::make_shared<Output>(OutputOptions{});
    Guest guest(with_files(NullFile{}, CaptureOut{output, out}, BytesIn{"in"}));
    EXPECT_EQ(guest.call("fd_renumber", {1, 1}), ok);
    EXPECT_EQ(guest.call("fd_renumber", {1, 9}), badf);
    EXPECT_EQ(guest.call("fd_renumber", {1, 0}), ok);
    EXPECT_EQ(guest.write(0, "moved"), ok);
    EXPECT_EQ(output->bytes(out), "moved");
    EXPECT_EQ(guest.write(1, "x"), badf);
    EXPECT_EQ(guest.call("fd_close", {0}), ok);
    EXPECT_EQ(guest.call("fd_close", {0}), badf);
    guest.context->close_files();
    EXPECT_EQ(guest.read(2, 1), badf);
}

TEST(WasiDescriptors, streams_are_what_they_are) {
    auto output = std::make_shared<Output>(OutputOptions{});
    Guest guest(with_files(NullFile{}, BytesIn{"in"}, CaptureOut{output, out}));
    for (const auto fd : {0U, 1U, 2U}) {
        EXPECT_EQ(guest.call("fd_fdstat_get", {fd, Guest::record}), ok);
        EXPECT_EQ(guest.get<std::uint8_t>(Guest::record), 0);
        EXPECT_EQ(guest.call("fd_filestat_get", {fd, Guest::record}), ok);
        EXPECT_EQ(guest.get<std::uint8_t>(Guest::record + 16), 0);
        EXPECT_EQ(guest.call("fd_seek", {fd, 0, 1, Guest::result}), spipe);
        EXPECT_EQ(guest.call("fd_tell", {fd, Guest::result}), spipe);
        EXPECT_EQ(guest.call("fd_advise", {fd, 0, 0, 0}), spipe);
        EXPECT_EQ(guest.call("fd_allocate", {fd, 0, 1}), notsup);
        EXPECT_EQ(guest.call("fd_sync", {fd}), badf);
        EXPECT_EQ(guest.call("fd_datasync", {fd}), badf);
        EXPECT_EQ(guest.call("fd_pread", {fd, 0, 0, 0, Guest::result}), spipe);
        EXPECT_EQ(guest.call("fd_pwrite", {fd, 0, 0, 0, Guest::result}), spipe);
        EXPECT_EQ(guest.call("fd_prestat_get", {fd, Guest::record}), badf);
        EXPECT_EQ(guest.call("fd_prestat_dir_name", {fd, Guest::record, 9}), notdir);
        EXPECT_EQ(guest.call("fd_filestat_set_size", {fd, 0}), badf);
        EXPECT_EQ(guest.call("fd_filestat_set_times", {fd, 0, 0, 0}), badf);
        EXPECT_EQ(guest.call("fd_readdir", {fd, 0, 0, 0, Guest::result}), notdir);
        EXPECT_EQ(guest.open(fd, "a"), notdir);
        EXPECT_EQ(guest.call("fd_fdstat_set_rights", {fd, 0, 0}), notsup);
        EXPECT_EQ(guest.call("sock_accept", {fd, 0, Guest::result}), notsock);
        EXPECT_EQ(guest.receive(fd, 1), notsock);
        EXPECT_EQ(guest.send(fd, "x"), notsock);
        EXPECT_EQ(guest.call("sock_shutdown", {fd, 1}), notsock);
    }
}

TEST(WasiDescriptors, keep_append_and_nonblock_only) {
    Guest guest(with_files(NullFile{}));
    EXPECT_EQ(guest.call("fd_fdstat_set_flags", {0, 5}), ok);
    EXPECT_EQ(guest.call("fd_fdstat_get", {0, Guest::record}), ok);
    EXPECT_EQ(guest.get<std::uint16_t>(Guest::record + 2), 5);
    for (const auto flags : {2U, 8U, 16U, 32U, 0x10000U})
        EXPECT_EQ(guest.call("fd_fdstat_set_flags", {0, flags}), inval);
}

TEST(WasiStreams, read_bytes_to_their_end) {
    Guest guest(with_files(BytesIn{"hello"}, NullFile{}));
    EXPECT_EQ(guest.read(0, 3), ok);
    EXPECT_EQ(guest.got(), "hel");
    EXPECT_EQ(guest.read(0, 9), ok);
    EXPECT_EQ(guest.got(), "lo");
    EXPECT_EQ(guest.read(0, 9), ok);
    EXPECT_EQ(guest.number(), 0U);
    EXPECT_EQ(guest.write(0, "x"), badf);
    EXPECT_EQ(guest.read(1, 9), ok);
    EXPECT_EQ(guest.number(), 0U);
    EXPECT_EQ(guest.write(1, "gone"), ok);
    EXPECT_EQ(guest.number(), 4U);
}

TEST(WasiOutput, is_captured_in_order_and_handed_on) {
    std::string seen;
    OutputOptions options;
    options.keep_combined = true;
    options.sink = [&seen](OutputStream stream, std::string_view bytes) {
        seen += (stream == out ? "o:" : "e:") + std::string(bytes) + ";";
    };
    auto output = std::make_shared<Output>(std::move(options));
    Guest guest(with_files(NullFile{}, CaptureOut{output, out}, CaptureOut{output, err}));
    EXPECT_EQ(guest.write(1, "a"), ok);
    EXPECT_EQ(guest.write(2, "b"), ok);
    EXPECT_EQ(guest.write(1, "c"), ok);
    EXPECT_EQ(output->bytes(out), "ac");
    EXPECT_EQ(output->bytes(err), "b");
    EXPECT_EQ(output->combined(), "abc");
    EXPECT_EQ(seen, "o:a;e:b;o:c;");
    EXPECT_EQ(guest.read(1, 1), badf);
}

TEST(WasiOutput, takes_what_fits_then_nospc) {
    auto output = std::make_shared<Output>(OutputOptions{.max_output_bytes = 3});
    Guest guest(with_files(NullFile{}, CaptureOut{output, out}));
    EXPECT_EQ(guest.write(1, "abcde"), ok);
    EXPECT_EQ(guest.number(), 3U);
    EXPECT_EQ(guest.write(1, "de"), nospc);
    EXPECT_EQ(guest.write(1, ""), ok);
    EXPECT_EQ(output->bytes(out), "abc");
    EXPECT_EQ(output->lost_bytes(out), 4U);
}

TEST(WasiOutput, can_drop_what_only_the_sink_gets) {
    std::string seen;
    OutputOptions options;
    options.max_output_bytes = 1;
    options.when_full = WhenFull::drop;
    options.sink = [&seen](OutputStream, std::string_view bytes) {
        seen += bytes;
    };
    auto output = std::make_shared<Output>(std::move(options));
    Guest guest(with_files(NullFile{}, CaptureOut{output, out}));
    EXPECT_EQ(guest.write(1, "abc"), ok);
    EXPECT_EQ(guest.number(), 3U);
    EXPECT_EQ(output->bytes(out), "a");
    EXPECT_EQ(seen, "abc");
    EXPECT_EQ(output->lost_bytes(out), 2U);
}

TEST(WasiOutput, a_sink_that_throws_is_an_errno) {
    OutputOptions options;
    options.sink = [](OutputStream, std::string_view) {
        throw std::runtime_error("full");
    };
    Guest guest(with_files(CaptureOut{std::make_shared<Output>(std::move(options)), out}));
    EXPECT_EQ(guest.write(0, "a"), 29U);
}

TEST(WasiHostStream, waits_until_the_deadline) {
    auto [ours, theirs] = connected_pair();
    Guest guest(with_files(HostStream{std::move(ours)}));
    ASSERT_EQ(::write(theirs.get(), "hi", 2), 2);
    EXPECT_EQ(guest.read(0, 9), ok);
    EXPECT_EQ(guest.got(), "hi");
    guest.let_time_pass();
    EXPECT_EQ(guest.read(0, 9), trapped(TrapReason::interrupted));
    guest.cancel();
    EXPECT_EQ(guest.read(0, 9), trapped(TrapReason::interrupted));
    EXPECT_EQ(guest.call("fd_fdstat_set_flags", {0, 4}), ok);
    EXPECT_EQ(guest.read(0, 9), again);
    theirs.reset();
    EXPECT_EQ(guest.read(0, 9), ok);
    EXPECT_EQ(guest.number(), 0U);
    EXPECT_EQ(guest.write(0, "x"), pipe);
}

TEST(WasiHostStream, a_pipe_without_reader_raises_no_signal) {
    std::array<int, 2> fds{};
    ASSERT_EQ(::pipe(fds.data()), 0);
    UniqueFd reader(fds[0]);
    Guest guest(with_files(HostStream{UniqueFd(fds[1])}));
    EXPECT_EQ(guest.write(0, "x"), ok);
    reader.reset();
    EXPECT_EQ(guest.write(0, "x"), pipe);
    EXPECT_EQ(guest.read(0, 1), badf);
}

TEST(WasiPoll, checks_its_arguments) {
    Guest guest;
    EXPECT_EQ(guest.poll(0), inval);
    EXPECT_EQ(guest.poll(5000), inval);
    guest.subscribe(0, 3, 0);
    EXPECT_EQ(guest.poll(1), inval);
    guest.subscribe(0, 0, 0, 0, 2);
    EXPECT_EQ(guest.poll(1), inval);
}

TEST(WasiPoll, gives_clocks_and_errors_as_events) {
    Guest guest(with_files(NullFile{}, BytesIn{"abc"}));
    guest.subscribe(0, 1, 7);                    // no such descriptor
    guest.subscribe(1, 0, 1, 1'000'000'000'000); // later
    guest.subscribe(2, 0, 2);                    // no such clock
    guest.subscribe(3, 1, 1);                    // bytes
    guest.subscribe(4, 0, 0, 1, 1);              // 1970
    guest.subscribe(5, 2, 1);                    // not for writing
    EXPECT_EQ(guest.poll(6), ok);
    ASSERT_EQ(guest.number(), 5U);
    EXPECT_EQ(guest.event_errno(0), badf);
    EXPECT_EQ(guest.get<std::uint64_t>(Guest::record), 100U);
    EXPECT_EQ(guest.event_errno(1), badf);
    EXPECT_EQ(guest.get<std::uint64_t>(Guest::record + 32), 102U);
    EXPECT_EQ(guest.event_errno(2), ok);
    EXPECT_EQ(guest.get<std::uint64_t>(Guest::record + 64 + 16), 3U);
    EXPECT_EQ(guest.event_errno(3), ok);
    EXPECT_EQ(guest.event_errno(4), badf);
}

TEST(WasiPoll, waits_for_the_clock_or_the_deadline) {
    Guest guest;
    guest.subscribe(0, 0, 1, 1000);
    EXPECT_EQ(guest.poll(1), ok);
    EXPECT_EQ(guest.number(), 1U);
    guest.subscribe(0, 0, 1, 0xffffffffffffffffU);
    guest.let_time_pass();
    EXPECT_EQ(guest.poll(1), trapped(TrapReason::interrupted));
    guest.cancel();
    EXPECT_EQ(guest.poll(1), trapped(TrapReason::interrupted));
}

TEST(WasiPoll, sees_bytes_room_and_the_end) {
    auto [ours, theirs] = connected_pair();
    Guest guest(with_files(Stream{std::move(ours), nullptr}));
    guest.subscribe(0, 1, 0);
    guest.subscribe(1, 2, 0);
    EXPECT_EQ(guest.poll(2), ok);
    ASSERT_EQ(guest.number(), 1U);
    EXPECT_EQ(guest.get<std::uint8_t>(Guest::record + 10), 2);
    ASSERT_EQ(::write(theirs.get(), "hi", 2), 2);
    EXPECT_EQ(guest.poll(1), ok);
    EXPECT_EQ(guest.get<std::uint64_t>(Guest::record + 16), 2U);
    theirs.reset();
    EXPECT_EQ(guest.poll(1), ok);
    EXPECT_EQ(guest.get<std::uint16_t>(Guest::record + 24), 1);
}

} // namespace
} // namespace host_runner::wasm::wasi::tests
