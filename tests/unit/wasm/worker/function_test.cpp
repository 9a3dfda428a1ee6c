// SPDX-License-Identifier: Apache-2.0
//
// Real workers of the world `function`, spoken to as the agent does.
#include <csignal>
#include <map>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "compiled_fixture.hpp"
#include "fakes/sanitizer.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/protocol/invocation.hpp"
#include "host_runner/wasm/worker/counters.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace host_runner::wasm::worker {
namespace {

using namespace std::chrono_literals;
using protocol::CallStatus;
using protocol::FrameKind;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using tests::compiled;

constexpr int artifact_number = 3;
constexpr int report_number = 4;
constexpr int channel_number = 5;
constexpr int counters_number = 6;
constexpr int patience_ms = 60'000;

/// What came of one call.
struct Seen {
    protocol::InvokeResult result;
    std::string out;
    std::string err;
    std::string combined;
    bool started = false;
};

class Function : public testing::Test {
protected:
    void SetUp() override {
        if (tests::has_sanitizer)
            GTEST_SKIP() << "a sanitizer makes calls that a worker may not";
    }
    Function() {
        request.world = protocol::World::function;
        request.artifact_fd = artifact_number;
        request.report_fd = report_number;
        request.channel_fd = channel_number;
        request.counters_fd = counters_number;
        request.arguments = {"fn"};
        request.memory_bytes = std::uint64_t{16} << 20U;
        request.timeout = 60s;
        request.calls.calls = 4;
    }
    ~Function() override {
        if (child_.pid <= 0)
            return;
        ::kill(child_.pid, SIGKILL);
        static_cast<void>(reap(child_));
    }
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;

    /// Returns when the worker takes calls.
    void start(const std::string& module) {
        const auto artifact = compiled(module);
        std::array<int, 2> ends{};
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
        channel_.reset(ends[0]);
        const UniqueFd workers_end(ends[1]);
        ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
        const UniqueFd report(ends[0]);
        UniqueFd report_writer(ends[1]);
        ProcessSpec spec;
        spec.argv = {GUEST_AGENT, "worker", encode_request(request)};
        spec.environment = {"A=service", "B=service"};
        spec.stderr_fd = STDERR_FILENO;
        spec.pass_fds = {{artifact_number, artifact.get()},
                         {report_number, report_writer.get()},
                         {channel_number, workers_end.get()},
                         {counters_number, counters.fd()}};
        auto child = launcher_.launch(spec);
        ASSERT_TRUE(child) << child.error().describe();
        child_ = std::move(*child);
        report_writer.reset();
        EXPECT_EQ(read_all(report.get(), 4096).value_or("?"), "");
    }

    void send(FrameKind kind, std::uint64_t call, std::string_view payload = "") {
        const auto frame = protocol::encode_frame({kind, call, payload});
        ASSERT_EQ(::send(channel_.get(), frame.data(), frame.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(frame.size()));
    }
    void call(std::uint64_t number, std::vector<std::string> arguments,
              std::map<std::string, std::string> environment = {},
              std::chrono::milliseconds timeout = 0ms,
              std::optional<std::uint64_t> output_bytes = {}) {
        protocol::InvokeRequest invoke;
        invoke.function = "fn";
        invoke.arguments = std::move(arguments);
        invoke.environment = std::move(environment);
        invoke.timeout = timeout;
        invoke.output_bytes = output_bytes;
        send(FrameKind::request, number, *protocol::encode_invoke_request(invoke));
    }

    /// Reads one frame into what was seen. @return false: the worker has gone
    bool read_frame() {
        pollfd waiting{channel_.get(), POLLIN, 0};
        if (::poll(&waiting, 1, patience_ms) != 1) {
            ADD_FAILURE() << "the worker says nothing";
            return false;
        }
        std::string buffer(protocol::frame_header_bytes + protocol::max_frame_payload_bytes, '\0');
        const ssize_t count = ::recv(channel_.get(), buffer.data(), buffer.size(), 0);
        if (count <= 0)
            return false;
        const auto frame = protocol::decode_frame(
            std::string_view(buffer).substr(0, static_cast<std::size_t>(count)));
        EXPECT_TRUE(frame);
        auto& seen = calls_[frame->call];
        switch (frame->kind) {
        case FrameKind::started:
            seen.started = true;
            break;
        case FrameKind::output:
            seen.out += frame->payload;
            seen.combined += frame->payload;
            break;
        case FrameKind::error_output:
            seen.err += frame->payload;
            seen.combined += frame->payload;
            break;
        case FrameKind::input_room:
            room += protocol::decode_room(frame->payload).value_or(0);
            break;
        case FrameKind::result: {
            const auto result = protocol::decode_invoke_result(frame->payload);
            EXPECT_TRUE(result);
            EXPECT_FALSE(ended_.contains(frame->call)) << "a second result";
            seen.result = *result;
            ended_[frame->call] = true;
            break;
        }
        default:
            ADD_FAILURE() << "a worker says no " << protocol::to_string(frame->kind);
        }
        return true;
    }
    const Seen& end_of(std::uint64_t number) {
        while (!ended_.contains(number) && read_frame())
            ;
        EXPECT_TRUE(ended_.contains(number)) << "no result of call " << number;
        return calls_[number];
    }
    const Seen& run(std::vector<std::string> arguments, std::string_view input = "") {
        const auto number = ++last_call_;
        call(number, std::move(arguments));
        if (!input.empty())
            send(FrameKind::input, number, input);
        send(FrameKind::input_end, number);
        return end_of(number);
    }

    [[nodiscard]] std::uint64_t counted(const std::string& name) const {
        return counters.values().at(name);
    }

    Request request;
    const Counters counters = Counters::create(protocol::World::function).value();
    ForkExecLauncher launcher_;
    ChildProcess child_;
    UniqueFd channel_;
    std::map<std::uint64_t, Seen> calls_;
    std::map<std::uint64_t, bool> ended_;
    std::uint64_t last_call_ = 1000;               ///< Of run(); tests number theirs from 1.
    std::size_t room = protocol::input_room_bytes; ///< Of one call that is fed.
};

TEST_F(Function, reads_its_input_and_answers) {
    start("sum.wasm");
    const auto& first = run({}, "[1, 2.5, 4]");
    EXPECT_TRUE(first.started);
    EXPECT_EQ(first.out, "{\"count\":3,\"sum\":7.5,\"smallest\":1,\"largest\":4}\n");
    EXPECT_THAT(first.err, IsEmpty());
    EXPECT_EQ(first.result.status, CallStatus::exit);
    EXPECT_EQ(first.result.code, 0);
    EXPECT_EQ(first.result.output_bytes, first.out.size());
    EXPECT_GT(first.result.memory_peak_bytes, 0U);
    const auto& second = run({}, "[1,");
    EXPECT_EQ(second.result.code, 2);
    EXPECT_THAT(second.err, HasSubstr("no number at byte 3"));
    const auto& third = run({}, "");
    EXPECT_THAT(third.err, HasSubstr("no array"));
}

TEST_F(Function, has_the_environment_of_the_service_under_that_of_the_call) {
    start("deeds_wasi.wasm");
    call(1, {"environment"}, {{"B", "call"}, {"C", "call"}});
    const auto& seen = end_of(1);
    for (const auto* line : {"A=service\n", "B=call\n", "C=call\n", "FD_COUNT=3\n"})
        EXPECT_THAT(seen.out, HasSubstr(line));
    EXPECT_THAT(seen.out, testing::Not(HasSubstr("B=service")));
    EXPECT_EQ(run({"arguments", "x"}).out, "fn\narguments\nx\n");
}

TEST_F(Function, that_is_wrong_in_its_environment_is_not_run) {
    start("deeds_wasi.wasm");
    call(1, {"arguments"}, {{"A=B", "c"}});
    EXPECT_EQ(end_of(1).result.status, CallStatus::bad_request);
    EXPECT_FALSE(end_of(1).started);
    send(FrameKind::request, 2, "{}");
    EXPECT_EQ(end_of(2).result.status, CallStatus::bad_request);
    EXPECT_EQ(counted("call"), 2U);
    EXPECT_EQ(counted("bad_request"), 2U);
}

TEST_F(Function, ends_in_each_way_and_then_goes_on) {
    start("deeds_wasi.wasm");
    EXPECT_EQ(run({"exit", "7"}).result.code, 7);
    const auto& trapped = run({"trap"}).result;
    EXPECT_EQ(trapped.status, CallStatus::trap);
    EXPECT_THAT(trapped.message, StartsWith("The module trapped: Unreachable"));
    EXPECT_EQ(run({"exhaust"}).result.status, CallStatus::oom);
    call(100, {"spin"}, {}, 50ms);
    EXPECT_EQ(end_of(100).result.status, CallStatus::timeout);
    EXPECT_THAT(end_of(100).result.message, HasSubstr("50 ms"));
    call(101, {"sleep"}, {}, 50ms);
    EXPECT_EQ(end_of(101).result.status, CallStatus::timeout);
    call(102, {"spin"});
    send(FrameKind::cancel, 102);
    EXPECT_EQ(end_of(102).result.status, CallStatus::cancelled);
    EXPECT_EQ(run({"exit", "0"}).result.status, CallStatus::exit);
    for (const auto& [name, times] : std::map<std::string, std::uint64_t>{{"call", 7},
                                                                          {"exit", 1},
                                                                          {"trap", 1},
                                                                          {"oom", 1},
                                                                          {"timeout", 2},
                                                                          {"cancelled", 1},
                                                                          {"ok", 1}})
        EXPECT_EQ(counted(name), times) << name;
}

TEST_F(Function, waits_for_input_no_longer_than_its_deadline) {
    start("calls.wasm");
    call(1, {"echo"}, {}, 50ms);
    EXPECT_EQ(end_of(1).result.status, CallStatus::timeout);
}

TEST_F(Function, keeps_the_order_of_both_outputs) {
    start("calls.wasm");
    const auto& seen = run({"turns"});
    EXPECT_EQ(seen.combined, "line 0\nline 1\nline 2\nline 3\n");
    EXPECT_EQ(seen.out, "line 0\nline 2\n");
}

TEST_F(Function, stops_writing_where_there_is_no_room_and_goes_on_when_there_is) {
    request.calls.output_bytes = 0;
    start("calls.wasm");
    constexpr std::size_t much = std::size_t{1} << 20U;
    call(1, {"write", std::to_string(much)});
    while (calls_[1].out.size() < protocol::output_room_bytes)
        ASSERT_TRUE(read_frame());
    // Another call is not held up by it, and the first says nothing more.
    EXPECT_EQ(run({"turns"}).result.code, 0);
    EXPECT_EQ(calls_[1].out.size(), protocol::output_room_bytes);
    while (!ended_.contains(1)) {
        const auto before = calls_[1].out.size();
        send(FrameKind::output_room, 1, protocol::encode_room(protocol::output_room_bytes));
        while (!ended_.contains(1) && calls_[1].out.size() < before + protocol::output_room_bytes)
            ASSERT_TRUE(read_frame());
    }
    EXPECT_EQ(calls_[1].out.size(), much);
    EXPECT_EQ(calls_[1].result.code, 0);
}

TEST_F(Function, whose_reader_gives_no_room_ends_at_its_deadline) {
    request.calls.output_bytes = 0;
    start("calls.wasm");
    call(1, {"write", "1000000"}, {}, 100ms);
    EXPECT_EQ(end_of(1).result.status, CallStatus::timeout);
    EXPECT_EQ(calls_[1].out.size(), protocol::output_room_bytes);
}

TEST_F(Function, runs_on_above_its_cap_and_the_rest_is_counted) {
    request.calls.output_bytes = 1000;
    start("calls.wasm");
    const auto& first = run({"write", "5000"});
    EXPECT_EQ(first.out.size(), 1000U);
    EXPECT_EQ(first.result.output_bytes, 5000U);
    EXPECT_TRUE(first.result.truncated);
    EXPECT_EQ(first.result.code, 0);
    call(50, {"write", "5000"}, {}, 0ms, 10);
    EXPECT_EQ(end_of(50).out.size(), 10U);
    call(51, {"write", "5000"}, {}, 0ms, 1'000'000);
    EXPECT_EQ(end_of(51).out.size(), 1000U) << "a call cannot raise the cap";
}

TEST_F(Function, takes_more_input_than_there_is_room_for_at_once) {
    request.calls.output_bytes = 0;
    start("calls.wasm");
    std::string input(std::size_t{300} << 10U, 'a');
    for (std::size_t i = 0; i < input.size(); ++i)
        input[i] = static_cast<char>('a' + i % 23);
    call(1, {"echo"});
    std::size_t given = 0;
    std::size_t taken = 0;
    while (!ended_.contains(1)) {
        const auto piece = std::min({room, input.size() - given, std::size_t{10'000}});
        if (piece == 0) {
            ASSERT_TRUE(read_frame());
        } else {
            send(FrameKind::input, 1, std::string_view(input).substr(given, piece));
            given += piece;
            room -= piece;
            if (given == input.size())
                send(FrameKind::input_end, 1);
        }
        if (const auto read = calls_[1].out.size(); read - taken > 50'000) {
            send(FrameKind::output_room, 1,
                 protocol::encode_room(static_cast<std::uint32_t>(read - taken)));
            taken = read;
        }
    }
    const auto& seen = end_of(1);
    EXPECT_TRUE(seen.out == input) << seen.out.size() << " bytes";
    EXPECT_EQ(seen.err, std::to_string(input.size()) + " bytes\n");
}

TEST_F(Function, of_a_caller_that_floods_its_input_is_cancelled) {
    start("deeds_wasi.wasm");
    call(1, {"spin"});
    const std::string piece(protocol::max_frame_payload_bytes, 'x');
    for (int i = 0; i < 4 && !ended_.contains(1); ++i)
        send(FrameKind::input, 1, piece);
    EXPECT_EQ(end_of(1).result.status, CallStatus::cancelled);
}

TEST_F(Function, takes_as_many_calls_as_it_has_places_and_as_many_wait) {
    request.calls.calls = 2;
    start("deeds_wasi.wasm");
    for (std::uint64_t number = 1; number <= 4; ++number)
        call(number, {"spin"});
    call(5, {"spin"});
    EXPECT_EQ(end_of(5).result.status, CallStatus::overloaded);
    // Those that wait keep their deadline and can be cancelled, as those that run.
    send(FrameKind::cancel, 4);
    EXPECT_EQ(end_of(4).result.status, CallStatus::cancelled);
    call(6, {"spin"}, {}, 50ms);
    EXPECT_EQ(end_of(6).result.status, CallStatus::timeout);
    EXPECT_FALSE(calls_[6].started);
    for (std::uint64_t number = 1; number <= 3; ++number)
        send(FrameKind::cancel, number);
    for (std::uint64_t number = 1; number <= 4; ++number)
        EXPECT_EQ(end_of(number).result.status, CallStatus::cancelled);
    EXPECT_EQ(run({"exit", "3"}).result.code, 3);
}

TEST_F(Function, that_is_stopped_lets_calls_end_and_takes_no_more) {
    request.grace = 60s;
    start("calls.wasm");
    call(1, {"echo"});
    while (!calls_[1].started)
        ASSERT_TRUE(read_frame());
    ::kill(child_.pid, SIGTERM);
    // The signal and the next call come on different ways, so the call may be quicker.
    std::uint64_t number = 1;
    do {
        call(++number, {"turns"});
    } while (end_of(number).result.status == CallStatus::exit);
    EXPECT_EQ(end_of(number).result.status, CallStatus::unavailable);
    send(FrameKind::input, 1, "late");
    send(FrameKind::input_end, 1);
    EXPECT_EQ(end_of(1).out, "late");
    EXPECT_FALSE(read_frame()); // it ends
    const auto status = reap(child_);
    child_ = {};
    ASSERT_TRUE(status);
    EXPECT_EQ(status->code, 0);
}

TEST_F(Function, that_is_stopped_without_grace_cancels_its_calls) {
    start("deeds_wasi.wasm");
    call(1, {"spin"});
    while (!calls_[1].started)
        ASSERT_TRUE(read_frame());
    ::kill(child_.pid, SIGTERM);
    EXPECT_EQ(end_of(1).result.status, CallStatus::cancelled);
    EXPECT_FALSE(read_frame());
}

TEST_F(Function, ends_when_its_agent_is_gone) {
    start("deeds_wasi.wasm");
    call(1, {"spin"});
    while (!calls_[1].started)
        ASSERT_TRUE(read_frame());
    channel_.reset();
    const auto status = reap(child_);
    child_ = {};
    ASSERT_TRUE(status);
    EXPECT_TRUE(status->exited);
}

/// The same of components, which tests/fixtures/wasm_http/service.c describes.
class ComponentFunction : public Function {
protected:
    ComponentFunction() {
        request.is_component = true;
        request.calls.output_bytes = 0;
    }
    void start_component() {
        start("../wasm_http/service.wasm");
    }
};

TEST_F(ComponentFunction, answers_a_request_with_the_calls_environment) {
    start_component();
    call(1, {}, {{"GREETING", "call"}});
    send(FrameKind::input_end, 1);
    const auto& seen = end_of(1);
    EXPECT_TRUE(seen.started);
    EXPECT_EQ(seen.out, "hello\ncall\n");
    EXPECT_EQ(seen.result.status, CallStatus::exit);
    EXPECT_EQ(seen.result.code, 0);
    EXPECT_THAT(seen.result.message, IsEmpty());
}

TEST_F(ComponentFunction, gets_the_input_as_its_body) {
    start_component();
    EXPECT_EQ(run({"/echo"}, "some bytes").out, "some bytes");
    EXPECT_EQ(run({"/echo"}).out, "");
    const auto& headers = run({"/headers"}, "1234567").out;
    EXPECT_THAT(headers, HasSubstr("content-length: 7"));
    EXPECT_THAT(headers, HasSubstr("content-type: application/octet-stream"));
}

TEST_F(ComponentFunction, ends_in_each_way_and_then_goes_on) {
    start_component();
    const auto& trapped = run({"/trap"}).result;
    EXPECT_EQ(trapped.status, CallStatus::trap);
    EXPECT_THAT(trapped.message, HasSubstr("unreachable"));
    EXPECT_EQ(run({"/memory"}).result.status, CallStatus::oom);
    EXPECT_THAT(run({"/silent"}).result.message, HasSubstr("without an answer"));
    const auto& late = run({"/late"});
    EXPECT_EQ(late.result.status, CallStatus::trap);
    EXPECT_THAT(late.out, testing::Not(IsEmpty()));
    for (const auto* path : {"/spin", "/sleep", "/pause"}) {
        const auto number = ++last_call_;
        call(number, {path}, {}, 100ms);
        send(FrameKind::input_end, number);
        EXPECT_EQ(end_of(number).result.status, CallStatus::timeout) << path;
        EXPECT_THAT(end_of(number).result.message, HasSubstr("100 ms"));
    }
    call(1, {"/sleep"});
    send(FrameKind::input_end, 1);
    while (!calls_[1].started)
        ASSERT_TRUE(read_frame());
    send(FrameKind::cancel, 1);
    EXPECT_EQ(end_of(1).result.status, CallStatus::cancelled);
    EXPECT_EQ(run({"/echo"}, "x").out, "x");
}

TEST_F(ComponentFunction, whose_input_does_not_end_is_over_at_its_deadline) {
    start_component();
    call(1, {"/echo"}, {}, 50ms);
    EXPECT_EQ(end_of(1).result.status, CallStatus::timeout);
    EXPECT_FALSE(end_of(1).started);
}

TEST_F(ComponentFunction, is_called_by_a_path_and_nothing_else) {
    start_component();
    EXPECT_EQ(run({"/echo", "more"}).result.status, CallStatus::bad_request);
    EXPECT_EQ(run({"echo"}).result.status, CallStatus::bad_request);
    EXPECT_EQ(run({"/a b"}).result.status, CallStatus::bad_request);
}

TEST_F(ComponentFunction, writes_as_much_as_there_is_room_for) {
    start_component();
    call(1, {"/big"});
    send(FrameKind::input_end, 1);
    std::size_t taken = 0;
    while (!ended_.contains(1)) {
        ASSERT_TRUE(read_frame());
        EXPECT_LE(calls_[1].out.size() - taken, protocol::output_room_bytes);
        if (const auto read = calls_[1].out.size(); read - taken >= protocol::output_room_bytes) {
            send(FrameKind::output_room, 1,
                 protocol::encode_room(static_cast<std::uint32_t>(read - taken)));
            taken = read;
        }
    }
    EXPECT_EQ(calls_[1].result.status, CallStatus::exit);
    EXPECT_EQ(calls_[1].out.size(), std::size_t{8} << 20U);
}

} // namespace
} // namespace host_runner::wasm::worker
