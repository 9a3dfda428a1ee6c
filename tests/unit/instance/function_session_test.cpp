// SPDX-License-Identifier: Apache-2.0
//
// The guest is a thread of the test's at the other end of a unix socket, as QEMU's is.
#include "host_runner/instance/function_session.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"

namespace host_runner::instance {
namespace {

using namespace std::chrono_literals;
using protocol::CallStatus;
using protocol::Frame;
using protocol::FrameKind;
using testing::HasSubstr;
using testing::SizeIs;

/// One connection of a guest that does what a test tells it.
class Guest {
public:
    explicit Guest(int fd) : fd_(fd) {}
    /// The next frame, its payload copied.
    Frame next() {
        for (;;) {
            const auto frame = reader_.next();
            if (!frame)
                return {};
            if (*frame) {
                payload_ = (*frame)->payload;
                return {(*frame)->kind, (*frame)->call, payload_};
            }
            std::array<char, 65536> buffer{};
            const ssize_t count = ::recv(fd_, buffer.data(), buffer.size(), 0);
            if (count <= 0)
                return {};
            reader_.push({buffer.data(), static_cast<std::size_t>(count)});
        }
    }
    void say(FrameKind kind, std::uint64_t call, std::string_view payload = "") const {
        say_bytes(protocol::encode_frame({kind, call, payload}));
    }
    void say_bytes(std::string_view bytes) const {
        while (!bytes.empty()) {
            const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (count <= 0)
                return;
            bytes.remove_prefix(static_cast<std::size_t>(count));
        }
    }
    void say_ready() {
        const auto hello = next();
        EXPECT_EQ(hello.kind, FrameKind::hello);
        say(FrameKind::ready, 0, std::string(hello.payload) + "{\"agent_version\":\"1\"}");
    }
    void say_result(std::uint64_t call, CallStatus status = CallStatus::exit, int code = 0) const {
        protocol::InvokeResult result;
        result.status = status;
        result.code = code;
        say(FrameKind::result, call, protocol::encode_invoke_result(result));
    }

private:
    int fd_;
    protocol::FrameReader reader_;
    std::string payload_;
};

class Session : public testing::Test {
protected:
    Session() {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
        listener.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        EXPECT_EQ(
            ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(listener.get(), 4), 0);
    }
    ~Session() override {
        session.reset();
        ::shutdown(listener.get(), SHUT_RDWR);
        if (thread.joinable())
            thread.join();
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// Each connection meets the guest anew; its return ends the connection.
    void serve(std::function<void(Guest&)> guest) {
        thread = std::thread([this, guest = std::move(guest)] {
            for (;;) {
                const UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
                if (!fd)
                    return;
                Guest one(fd.get());
                guest(one);
            }
        });
    }
    void open() {
        auto opened = FunctionSession::open(*loop, path, 30s);
        ASSERT_TRUE(opened) << opened.error().describe();
        session = std::move(*opened);
    }
    FunctionSession::Handlers handlers() {
        FunctionSession::Handlers handlers;
        handlers.on_output = [this](FunctionSession::Stream stream, std::string_view bytes) {
            (stream == FunctionSession::Stream::output ? out : err) += bytes;
        };
        handlers.on_result = [this](const protocol::InvokeResult& ended) {
            results.push_back(ended);
            loop->stop();
        };
        return handlers;
    }
    std::uint64_t begin(const protocol::InvokeRequest& request = {.function = "fn"}) {
        const auto number = session->begin(request, handlers());
        EXPECT_TRUE(number);
        return number.value_or(0);
    }
    void run() {
        const auto guard = loop->call_after(30s, [this] {
            ADD_FAILURE() << "no result";
            loop->stop();
        });
        ASSERT_TRUE(loop->run());
        loop->cancel(guard);
    }

    tests::TemporaryDirectory folder;
    std::string path = folder / "port";
    UniqueFd listener;
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    std::unique_ptr<FunctionSession> session;
    std::thread thread;
    std::string out;
    std::string err;
    std::vector<protocol::InvokeResult> results;
};

TEST_F(Session, calls_and_is_answered) {
    serve([](Guest& guest) {
        guest.say_ready();
        const auto call = guest.next();
        EXPECT_EQ(call.kind, FrameKind::request);
        const auto number = call.call;
        EXPECT_EQ(protocol::decode_invoke_request(call.payload)->function, "fn");
        EXPECT_EQ(guest.next().payload, "input");
        EXPECT_EQ(guest.next().kind, FrameKind::input_end);
        guest.say(FrameKind::started, number);
        guest.say(FrameKind::output, number, "out");
        guest.say(FrameKind::error_output, number, "err");
        guest.say_result(number, CallStatus::exit, 3);
        guest.next();
    });
    open();
    const auto number = begin();
    session->write_input(number, "input");
    session->end_input(number);
    run();
    EXPECT_EQ(out, "out");
    EXPECT_EQ(err, "err");
    ASSERT_THAT(results, SizeIs(1));
    EXPECT_EQ(results[0].code, 3);
}

TEST_F(Session, skips_what_an_earlier_one_left_behind) {
    serve([](Guest& guest) {
        const auto hello = guest.next();
        guest.say_bytes("half a frame");
        guest.say(FrameKind::output, 1, "old");
        guest.say(FrameKind::ready, 0, "fedcba9876543210{}");
        guest.say(FrameKind::ready, 0, std::string(hello.payload) + "{}");
        const auto number = guest.next().call;
        guest.say(FrameKind::output, number, "new");
        guest.say_result(number);
        guest.next();
    });
    open();
    begin();
    run();
    EXPECT_EQ(out, "new");
}

TEST_F(Session, comes_back_until_the_guest_answers) {
    std::atomic<int> connections = 0;
    serve([&connections](Guest& guest) {
        if (++connections < 3) {
            guest.next();
            return;
        }
        guest.say_ready();
        guest.next();
    });
    open();
    EXPECT_EQ(connections, 3);
}

TEST_F(Session, gives_a_guest_up_that_does_not_answer) {
    serve([](Guest& guest) { guest.next(); });
    const auto opened = FunctionSession::open(*loop, path, 300ms);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::unavailable);
    EXPECT_THAT(opened.error().message, HasSubstr("within 300 ms"));
}

TEST_F(Session, sends_no_more_input_than_there_is_room_for) {
    serve([](Guest& guest) {
        guest.say_ready();
        const auto number = guest.next().call;
        std::size_t sum = 0;
        while (sum < protocol::input_room_bytes)
            sum += guest.next().payload.size();
        EXPECT_EQ(sum, protocol::input_room_bytes);
        guest.say(FrameKind::input_room, number, protocol::encode_room(10));
        EXPECT_EQ(guest.next().payload.size(), 10U);
        guest.say(FrameKind::input_room, number, protocol::encode_room(1000));
        EXPECT_EQ(guest.next().payload.size(), 5U);
        EXPECT_EQ(guest.next().kind, FrameKind::input_end);
        guest.say_result(number);
        guest.next();
    });
    open();
    auto all = handlers();
    int times_sent = 0;
    all.on_input_sent = [&times_sent] {
        ++times_sent;
    };
    const auto number = session->begin({.function = "fn"}, all).value_or(0);
    session->write_input(number, std::string(protocol::input_room_bytes + 15, 'x'));
    EXPECT_EQ(session->waiting_input(number), 15U);
    session->end_input(number);
    run();
    EXPECT_EQ(times_sent, 1);
}

TEST_F(Session, gives_room_for_output_in_large_pieces) {
    serve([](Guest& guest) {
        guest.say_ready();
        const auto number = guest.next().call;
        const std::string half(protocol::output_room_bytes / 2, 'x');
        guest.say(FrameKind::output, number, half);
        const auto room = guest.next();
        EXPECT_EQ(room.kind, FrameKind::output_room);
        EXPECT_EQ(protocol::decode_room(room.payload).value_or(0), half.size());
        guest.say(FrameKind::output, number, half);
        guest.say(FrameKind::error_output, number, half);
        guest.say_result(number);
        guest.next();
    });
    open();
    auto all = handlers();
    std::uint64_t number = 0;
    all.on_output = [&](FunctionSession::Stream, std::string_view bytes) {
        out += bytes;
        session->give_room(number, bytes.size());
    };
    number = session->begin({.function = "fn"}, all).value_or(0);
    run();
    EXPECT_EQ(out.size(), protocol::output_room_bytes * 3 / 2);
}

TEST_F(Session, is_over_when_the_guest_breaks_the_rules) {
    const std::vector<std::pair<std::function<void(Guest&, std::uint64_t)>, std::string>> cases{
        {[](Guest& guest, std::uint64_t) { guest.say_bytes("this is no frame at all"); },
         "no frame"},
        {[](Guest& guest, std::uint64_t) { guest.say(FrameKind::broken, 0, "tired\x1b"); },
         "tired"},
        {[](Guest& guest, std::uint64_t call) { guest.say(FrameKind::result, call, "{}"); },
         "not known"},
        {[](Guest& guest, std::uint64_t call) { guest.say(FrameKind::output, call, "longer"); },
         "more output than it may"},
        {[](Guest& guest, std::uint64_t call) { guest.say(FrameKind::input_room, call, "x"); },
         "4 bytes"},
        {[](Guest&, std::uint64_t) {}, "the VM has ended"}};
    std::size_t at = 0;
    serve([&](Guest& guest) {
        guest.say_ready();
        const auto number = guest.next().call;
        cases[at].first(guest, number);
        if (at + 1 < cases.size())
            guest.next(); // its end
    });
    for (at = 0; at < cases.size(); ++at) {
        open();
        protocol::InvokeRequest request{.function = "fn"};
        request.output_bytes = 5;
        begin(request);
        run();
        ASSERT_THAT(results, SizeIs(at + 1));
        EXPECT_EQ(results[at].status, CallStatus::lost);
        EXPECT_THAT(results[at].message, HasSubstr(cases[at].second));
        EXPECT_EQ(session->begin({.function = "fn"}, handlers()).error().code,
                  ErrorCode::unavailable);
    }
}

TEST_F(Session, cancels_and_the_result_still_comes) {
    serve([](Guest& guest) {
        guest.say_ready();
        const auto number = guest.next().call;
        EXPECT_EQ(guest.next().kind, FrameKind::cancel);
        guest.say_result(number, CallStatus::cancelled);
        guest.next();
    });
    open();
    session->cancel(begin());
    run();
    EXPECT_EQ(results.at(0).status, CallStatus::cancelled);
}

TEST(InvocationPort, is_one_that_nobody_has) {
    const tests::TemporaryDirectory folder;
    const InstancePaths paths{folder.path()};
    EXPECT_EQ(lock_invocation_port(paths, 0ms).error().code, ErrorCode::unsupported);
    for (const auto number : {5U, 6U, 7U, 8U})
        ASSERT_TRUE(write_file_atomic(paths.channel_socket(number), "", 0600));
    std::vector<InvocationPort> taken;
    for (int i = 0; i < 4; ++i) {
        auto port = lock_invocation_port(paths, 0ms);
        ASSERT_TRUE(port) << port.error().describe();
        taken.push_back(std::move(*port));
    }
    EXPECT_EQ(lock_invocation_port(paths, 30ms).error().code, ErrorCode::resource_exhausted);
    const auto freed = taken[2].socket;
    taken.erase(taken.begin() + 2);
    EXPECT_EQ(lock_invocation_port(paths, 0ms)->socket, freed);
}

} // namespace
} // namespace host_runner::instance
