// SPDX-License-Identifier: Apache-2.0
//
// Callers and workers are the test's own ends of sockets; worker/function_test.cpp has real
// workers.
#include "host_runner/agent/function_relay.hpp"

#include <array>
#include <functional>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "host_runner/protocol/invocation.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using protocol::CallStatus;
using protocol::FrameKind;
using testing::HasSubstr;

const std::string hello = "0123456789abcdef";

struct Said {
    FrameKind kind = FrameKind::broken;
    std::uint64_t call = 0;
    std::string payload;
};

struct Pair {
    UniqueFd ours;
    UniqueFd theirs;
};
Pair make_pair(int type) {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

class Relay : public testing::Test {
protected:
    Relay() : relay(*loop, logs) {
        relay.set_functions({"fn", "idle"});
        relay.attach("fn", "fn-1", connect_worker());
    }

    UniqueFd connect_worker() {
        auto pair = make_pair(SOCK_SEQPACKET);
        worker = std::move(pair.ours);
        return std::move(pair.theirs);
    }

    struct Caller {
        UniqueFd fd;
        protocol::FrameReader reader;
        std::vector<Said> said;
        bool has_ended = false;
    };
    Caller connect(bool with_hello = true) {
        auto pair = make_pair(SOCK_STREAM);
        EXPECT_TRUE(relay.serve_connection(std::move(pair.theirs)));
        Caller caller;
        caller.fd = std::move(pair.ours);
        if (with_hello)
            send(caller, FrameKind::hello, 0, hello);
        return caller;
    }

    static void send(const Caller& caller, FrameKind kind, std::uint64_t call,
                     std::string_view payload = "") {
        const auto frame = protocol::encode_frame({kind, call, payload});
        ASSERT_EQ(::send(caller.fd.get(), frame.data(), frame.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(frame.size()));
    }
    static void call(const Caller& caller, std::uint64_t number,
                     const std::string& function = "fn") {
        protocol::InvokeRequest request;
        request.function = function;
        send(caller, FrameKind::request, number, *protocol::encode_invoke_request(request));
    }
    void work(FrameKind kind, std::uint64_t number, std::string_view payload = "") const {
        const auto frame = protocol::encode_frame({kind, number, payload});
        ASSERT_EQ(::send(worker.get(), frame.data(), frame.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(frame.size()));
    }
    static std::string good_result() {
        protocol::InvokeResult result;
        result.status = CallStatus::exit;
        return protocol::encode_invoke_result(result);
    }

    /// Runs the loop until `is_done`.
    void run_until(const std::function<bool()>& is_done) {
        const auto deadline = std::chrono::steady_clock::now() + 30s;
        while (!is_done()) {
            ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "it never comes";
            ASSERT_TRUE(loop->run_once(10ms));
        }
    }
    /// What the caller has been told next.
    Said next(Caller& caller) {
        Said said;
        run_until([&] {
            std::array<char, 65536> buffer{};
            const ssize_t count =
                ::recv(caller.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
            if (count > 0)
                caller.reader.push({buffer.data(), static_cast<std::size_t>(count)});
            const auto frame = caller.reader.next();
            EXPECT_TRUE(frame);
            if (frame && *frame)
                said = {(*frame)->kind, (*frame)->call, std::string((*frame)->payload)};
            caller.has_ended = count == 0;
            return count == 0 || (frame && *frame);
        });
        return said;
    }
    CallStatus next_status(Caller& caller, std::uint64_t number) {
        const auto said = next(caller);
        EXPECT_EQ(said.kind, FrameKind::result);
        EXPECT_EQ(said.call, number);
        const auto result = protocol::decode_invoke_result(said.payload);
        EXPECT_TRUE(result);
        last_message = result ? result->message : "";
        return result ? result->status : CallStatus::exit;
    }
    /// What the worker is told next.
    Said next_work() {
        Said said;
        run_until([&] {
            std::array<char, 100'000> buffer{};
            const ssize_t count = ::recv(worker.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
            if (count <= 0)
                return false;
            const auto frame =
                protocol::decode_frame({buffer.data(), static_cast<std::size_t>(count)});
            EXPECT_TRUE(frame);
            said = {frame->kind, frame->call, std::string(frame->payload)};
            return true;
        });
        return said;
    }

    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    std::string folder = testing::TempDir();
    LogStore logs{folder + "/relay-log", nullptr};
    UniqueFd worker;
    FunctionRelay relay;
    std::string last_message;
};

TEST_F(Relay, is_ready_when_it_was_greeted) {
    auto caller = connect();
    const auto said = next(caller);
    EXPECT_EQ(said.kind, FrameKind::ready);
    EXPECT_EQ(said.payload.substr(0, hello.size()), hello);
    EXPECT_TRUE(protocol::decode_session_ready(said.payload.substr(hello.size())));
}

TEST_F(Relay, passes_a_call_on_and_its_answers_back) {
    auto caller = connect();
    next(caller);
    call(caller, 41);
    const auto work_item = next_work();
    EXPECT_EQ(work_item.kind, FrameKind::request);
    EXPECT_THAT(work_item.payload, HasSubstr("\"fn\""));
    for (const auto kind :
         {FrameKind::input, FrameKind::input_end, FrameKind::output_room, FrameKind::cancel}) {
        send(caller, kind, 41, "abc");
        const auto passed = next_work();
        EXPECT_EQ(passed.kind, kind);
        EXPECT_EQ(passed.call, work_item.call);
        EXPECT_EQ(passed.payload, "abc");
    }
    for (const auto kind :
         {FrameKind::started, FrameKind::output, FrameKind::error_output, FrameKind::input_room}) {
        work(kind, work_item.call, "xyz");
        const auto said = next(caller);
        EXPECT_EQ(said.kind, kind);
        EXPECT_EQ(said.call, 41U);
        EXPECT_EQ(said.payload, "xyz");
    }
    work(FrameKind::result, work_item.call, good_result());
    EXPECT_EQ(next_status(caller, 41), CallStatus::exit);
    // Its number is free again, and what still comes for it is dropped.
    work(FrameKind::output, work_item.call, "late");
    send(caller, FrameKind::input, 41, "late");
    call(caller, 41);
    EXPECT_EQ(next_work().kind, FrameKind::request);
}

TEST_F(Relay, keeps_the_calls_of_two_callers_apart) {
    auto one = connect();
    auto other = connect();
    next(one);
    next(other);
    call(one, 1);
    const auto work_of_one = next_work();
    call(other, 1);
    const auto work_of_other = next_work();
    EXPECT_NE(work_of_one.call, work_of_other.call);
    work(FrameKind::output, work_of_other.call, "other");
    work(FrameKind::output, work_of_one.call, "one");
    EXPECT_EQ(next(one).payload, "one");
    EXPECT_EQ(next(other).payload, "other");
}

TEST_F(Relay, answers_itself_where_no_worker_can) {
    auto caller = connect();
    next(caller);
    call(caller, 1, "nobody");
    EXPECT_EQ(next_status(caller, 1), CallStatus::bad_request);
    EXPECT_THAT(last_message, HasSubstr("'nobody'; there are: fn, idle"));
    call(caller, 2, "idle");
    EXPECT_EQ(next_status(caller, 2), CallStatus::unavailable);
    send(caller, FrameKind::request, 3, "{}");
    EXPECT_EQ(next_status(caller, 3), CallStatus::bad_request);
    for (std::uint64_t number = 0; number < FunctionRelay::max_calls; ++number)
        call(caller, 1000 + number);
    call(caller, 4);
    EXPECT_EQ(next_status(caller, 4), CallStatus::overloaded);
}

TEST_F(Relay, says_that_calls_are_lost_with_their_worker_and_what_it_said_before) {
    auto caller = connect();
    next(caller);
    call(caller, 1);
    const auto first = next_work();
    call(caller, 2);
    next_work();
    work(FrameKind::output, first.call, "last words");
    work(FrameKind::result, first.call, good_result());
    worker.reset();
    relay.detach("fn-1");
    EXPECT_EQ(next(caller).payload, "last words");
    EXPECT_EQ(next_status(caller, 1), CallStatus::exit);
    EXPECT_EQ(next_status(caller, 2), CallStatus::lost);
    call(caller, 3);
    EXPECT_EQ(next_status(caller, 3), CallStatus::unavailable);
    relay.attach("fn", "fn-1", connect_worker());
    call(caller, 4);
    EXPECT_EQ(next_work().kind, FrameKind::request);
}

TEST_F(Relay, gives_calls_to_the_worker_that_has_the_fewest) {
    const auto first_worker = std::move(worker);
    relay.attach("fn", "fn-2", connect_worker());
    auto caller = connect();
    next(caller);
    call(caller, 1);
    call(caller, 2);
    const auto work_of_second = next_work();
    EXPECT_EQ(work_of_second.kind, FrameKind::request);
    relay.detach("fn-2");
    EXPECT_EQ(next_status(caller, 2), CallStatus::lost);
    // The first one has its call still, and gets the next.
    call(caller, 3);
    worker = UniqueFd(::fcntl(first_worker.get(), F_DUPFD_CLOEXEC, 0));
    next_work();
    EXPECT_EQ(next_work().kind, FrameKind::request);
}

TEST_F(Relay, does_not_spin_on_a_worker_that_has_gone_before_it_is_detached) {
    worker.reset();
    ASSERT_TRUE(loop->run_once(0ms));
    const auto before = std::chrono::steady_clock::now();
    ASSERT_TRUE(loop->run_once(50ms));
    EXPECT_GE(std::chrono::steady_clock::now() - before, 40ms);
    relay.detach("fn-1");
}

TEST_F(Relay, cancels_the_calls_of_a_caller_that_leaves_or_begins_anew) {
    auto caller = connect();
    next(caller);
    call(caller, 1);
    const auto first = next_work();
    send(caller, FrameKind::hello, 0, "fedcba9876543210");
    const auto cancelled = next_work();
    EXPECT_EQ(cancelled.kind, FrameKind::cancel);
    EXPECT_EQ(cancelled.call, first.call);
    EXPECT_EQ(next(caller).kind, FrameKind::ready);
    // Of the old session nothing is told any more.
    work(FrameKind::result, first.call, good_result());
    call(caller, 1);
    const auto second = next_work();
    caller.fd.reset();
    const auto cancelled_too = next_work();
    EXPECT_EQ(cancelled_too.kind, FrameKind::cancel);
    EXPECT_EQ(cancelled_too.call, second.call);
}

TEST_F(Relay, gives_up_a_caller_that_breaks_the_rules) {
    const std::vector<std::pair<std::string, std::string>> cases{
        {"no frame at all, but longer than a header", "no frame"},
        {protocol::encode_frame({FrameKind::hello, 0, "short"}), "16 bytes"},
        {protocol::encode_frame({FrameKind::request, 1, "{}"}), "begins with a hello"},
        {protocol::encode_frame({FrameKind::hello, 0, hello}) +
             protocol::encode_frame({FrameKind::output, 1, "x"}),
         "sends no frame 'output'"},
        {protocol::encode_frame({FrameKind::hello, 0, hello}) +
             protocol::encode_frame({FrameKind::request, 0, "{}"}),
         "number of its own"}};
    for (const auto& [bytes, why] : cases) {
        auto caller = connect(false);
        ASSERT_EQ(::send(caller.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
        auto said = next(caller);
        if (said.kind == FrameKind::ready)
            said = next(caller);
        EXPECT_EQ(said.kind, FrameKind::broken) << why;
        EXPECT_THAT(said.payload, HasSubstr(why));
        // It is not listened to any more.
        send(caller, FrameKind::hello, 0, hello);
        auto witness = connect();
        EXPECT_EQ(next(witness).kind, FrameKind::ready);
        char byte = 0;
        EXPECT_EQ(::recv(caller.fd.get(), &byte, 1, MSG_DONTWAIT), -1);
    }
}

TEST_F(Relay, gives_up_a_caller_that_asks_and_never_reads) {
    auto caller = connect();
    next(caller);
    constexpr std::size_t least_answer_bytes = 200;
    std::string many;
    for (std::size_t sum = 0; sum < 3 * FunctionRelay::max_calls * protocol::output_room_bytes;
         sum += least_answer_bytes)
        many += protocol::encode_frame({FrameKind::request, 7, "{}"});
    std::string_view rest = many;
    while (!rest.empty()) {
        const ssize_t count =
            ::send(caller.fd.get(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count > 0)
            rest.remove_prefix(static_cast<std::size_t>(count));
        ASSERT_TRUE(loop->run_once(0ms));
    }
    auto said = next(caller);
    while (said.kind == FrameKind::result)
        said = next(caller);
    EXPECT_EQ(said.kind, FrameKind::broken);
    EXPECT_THAT(said.payload, HasSubstr("does not read its answers"));
}

TEST_F(Relay, takes_frames_however_they_are_cut) {
    auto caller = connect(false);
    protocol::InvokeRequest request;
    request.function = "fn";
    const auto bytes =
        protocol::encode_frame({FrameKind::hello, 0, hello}) +
        protocol::encode_frame({FrameKind::request, 1, *protocol::encode_invoke_request(request)});
    for (const char byte : bytes) {
        ASSERT_EQ(::send(caller.fd.get(), &byte, 1, MSG_NOSIGNAL), 1);
        ASSERT_TRUE(loop->run_once(0ms));
    }
    EXPECT_EQ(next(caller).kind, FrameKind::ready);
    EXPECT_EQ(next_work().kind, FrameKind::request);
}

TEST_F(Relay, hands_on_much_to_a_caller_that_reads_slowly) {
    auto caller = connect();
    next(caller);
    call(caller, 1);
    const auto item = next_work();
    const std::string piece(protocol::max_frame_payload_bytes, 'x');
    constexpr int pieces = 40; // more than a socket takes
    std::size_t sent = 0;
    while (sent < pieces) {
        const auto frame = protocol::encode_frame({FrameKind::output, item.call, piece});
        if (::send(worker.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
            ++sent;
        ASSERT_TRUE(loop->run_once(1ms));
    }
    for (int i = 0; i < pieces; ++i) {
        const auto said = next(caller);
        ASSERT_EQ(said.kind, FrameKind::output);
        ASSERT_EQ(said.payload, piece);
    }
}

} // namespace
} // namespace host_runner::agent
