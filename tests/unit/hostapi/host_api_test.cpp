// SPDX-License-Identifier: Apache-2.0
#include "host_runner/hostapi/host_api.hpp"

#include <future>
#include <optional>
#include <thread>

#include <unistd.h>

#include <linux/vm_sockets.h>

#include <gmock/gmock.h>

#include "fakes/raw_peer.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/hostapi/event_gate.hpp"
#include "host_runner/net/http_client.hpp"

namespace host_runner::hostapi {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;
using tests::RawPeer;

const protocol::HostInfo host_info{"web", "1.2.3"};

std::string post(const std::string& method, const std::string& body) {
    return "POST /api/" + method +
           "?json HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::string notify(const std::string& event, const std::string& payload = "x") {
    return post("Notify", protocol::encode_event({event, payload}));
}

std::string body_of(const std::string& answer) {
    const auto end = answer.find("\r\n\r\n");
    return end == std::string::npos ? answer : answer.substr(end + 4);
}

class HostApiTest : public ::testing::Test {
protected:
    HostApiTest() : loop_(EventLoop::create().value()) {
        callbacks_.on_event = [this](const protocol::Event& event) {
            events_.push_back(event);
        };
        callbacks_.get_sealing_key = [](const std::string& quote) -> Result<std::string> {
            return "{\"encrypted_key\":\"" + quote + "\"}";
        };
    }

    /// Runs the loop until so many events have come.
    bool wait_for_events(std::size_t count) {
        const auto deadline = EventLoop::Clock::now() + tests::patience;
        while (events_.size() < count && EventLoop::Clock::now() < deadline)
            EXPECT_TRUE(loop_->run_once(1s));
        return events_.size() >= count;
    }

    std::unique_ptr<EventLoop> loop_;
    Callbacks callbacks_;
    std::vector<protocol::Event> events_;
    std::unique_ptr<HostApi> api_; ///< Ends before what its callbacks use.
};

/// QEMU's part of virtio-serial: the socket to which the runner connects.
class HostApiOnVirtioSerial : public HostApiTest {
protected:
    void start() {
        api_ = HostApi::serve_virtio_serial(*loop_, folder_ / "1", host_info, callbacks_,
                                            folder_ / "4")
                   .value();
    }
    /// The guest's end, as the runner connects to it.
    RawPeer guest() {
        if (!listener_)
            listener_ = tests::listen_on_unix(folder_ / "1");
        return RawPeer(tests::accept_one(listener_));
    }
    tests::TemporaryDirectory folder_;
    UniqueFd listener_;
};

TEST_F(HostApiOnVirtioSerial, answers_info) {
    start();
    auto peer = guest();
    peer.send(post("Info", "{}"));
    EXPECT_EQ(body_of(peer.receive_until("}")), R"({"name":"web","version":"1.2.3"})");
}

TEST_F(HostApiOnVirtioSerial, answers_info_without_a_body) {
    start();
    auto peer = guest();
    peer.send(post("Info", ""));
    EXPECT_THAT(peer.receive_until("}"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnVirtioSerial, has_no_url) {
    start();
    EXPECT_EQ(api_->url(), "");
}

TEST_F(HostApiOnVirtioSerial, answers_notify_with_null) {
    start();
    auto peer = guest();
    peer.send(notify("boot.progress"));
    const auto answer = peer.receive_until("null");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
    EXPECT_EQ(body_of(answer), "null");
}

TEST_F(HostApiOnVirtioSerial, delivers_events_in_order_on_the_loops_thread) {
    const auto loops_thread = std::this_thread::get_id();
    callbacks_.on_event = [&](const protocol::Event& event) {
        EXPECT_EQ(std::this_thread::get_id(), loops_thread);
        events_.push_back(event);
    };
    start();
    auto peer = guest();
    peer.send(notify("boot.progress", "one") + notify("of.a.later.version", "two"));
    ASSERT_TRUE(wait_for_events(2));
    EXPECT_EQ(events_[0].name, "boot.progress");
    EXPECT_EQ(events_[0].payload, "one");
    EXPECT_EQ(events_[1].name, "of.a.later.version");
}

TEST_F(HostApiOnVirtioSerial, drops_a_payload_over_the_cap_and_says_so) {
    start();
    auto peer = guest();
    peer.send(notify("boot.error", std::string(protocol::max_event_payload_bytes + 1, 'a')));
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
    ASSERT_TRUE(wait_for_events(1));
    EXPECT_EQ(events_[0].name, "events.dropped");
    EXPECT_THAT(events_[0].payload, HasSubstr("'boot.error'"));
}

TEST_F(HostApiOnVirtioSerial, answers_400_with_the_cause_for_a_wrong_event) {
    start();
    auto peer = guest();
    peer.send(post("Notify", "{}"));
    const auto answer = peer.receive_until("}");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 "));
    EXPECT_THAT(body_of(answer), StartsWith(R"({"error":")"));
}

TEST_F(HostApiOnVirtioSerial, answers_404_for_a_method_that_it_does_not_have) {
    start();
    auto peer = guest();
    peer.send(post("Other", "{}"));
    EXPECT_THAT(peer.receive_until("}"), StartsWith("HTTP/1.1 404 "));
}

TEST_F(HostApiOnVirtioSerial, answers_405_for_a_get) {
    start();
    auto peer = guest();
    peer.send("GET /api/Info HTTP/1.1\r\n\r\n");
    EXPECT_THAT(peer.receive_until("}"), StartsWith("HTTP/1.1 405 "));
}

TEST_F(HostApiOnVirtioSerial, answers_with_the_key) {
    start();
    auto peer = guest();
    peer.send(post("GetSealingKey", R"({"quote":"00ff"})"));
    EXPECT_EQ(body_of(peer.receive_until("}")), R"({"encrypted_key":"00ff"})");
}

TEST_F(HostApiOnVirtioSerial, answers_400_with_the_cause_when_there_is_no_key) {
    callbacks_.get_sealing_key = [](const std::string&) -> Result<std::string> {
        return fail(ErrorCode::unsupported, "No keys here", "bring your own");
    };
    start();
    auto peer = guest();
    peer.send(post("GetSealingKey", R"({"quote":"00ff"})"));
    const auto answer = peer.receive_until("}");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 "));
    EXPECT_EQ(body_of(answer), protocol::encode_error("No keys here (bring your own)"));
}

TEST_F(HostApiOnVirtioSerial, answers_400_for_a_wrong_quote_without_asking_for_its_key) {
    callbacks_.get_sealing_key = [](const std::string&) -> Result<std::string> {
        ADD_FAILURE() << "asked";
        return "";
    };
    start();
    auto peer = guest();
    peer.send(post("GetSealingKey", R"({"quote":"xyz"})"));
    EXPECT_THAT(peer.receive_until("}"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(HostApiOnVirtioSerial, answers_events_while_a_key_is_being_made) {
    std::promise<void> asked;
    std::promise<void> made;
    callbacks_.get_sealing_key = [&](const std::string&) -> Result<std::string> {
        asked.set_value();
        made.get_future().wait_for(tests::patience);
        return "{}";
    };
    const auto key_listener = tests::listen_on_unix(folder_ / "4");
    start();
    auto peer = guest();
    RawPeer key_peer(tests::accept_one(key_listener));
    key_peer.send(post("GetSealingKey", R"({"quote":"00ff"})"));
    ASSERT_EQ(asked.get_future().wait_for(tests::patience), std::future_status::ready);
    peer.send(notify("boot.progress"));
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
    EXPECT_FALSE(key_peer.is_answered_within(0ms));
    made.set_value();
    EXPECT_THAT(key_peer.receive_until("{}"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnVirtioSerial, makes_one_key_at_a_time) {
    std::promise<void> asked;
    std::promise<void> made;
    callbacks_.get_sealing_key = [&](const std::string&) -> Result<std::string> {
        asked.set_value();
        made.get_future().wait_for(tests::patience);
        return "{}";
    };
    const auto key_listener = tests::listen_on_unix(folder_ / "4");
    start();
    auto peer = guest();
    RawPeer key_peer(tests::accept_one(key_listener));
    key_peer.send(post("GetSealingKey", R"({"quote":"00ff"})"));
    ASSERT_EQ(asked.get_future().wait_for(tests::patience), std::future_status::ready);
    peer.send(post("GetSealingKey", R"({"quote":"00ff"})"));
    EXPECT_THAT(peer.receive_until("}"), StartsWith("HTTP/1.1 503 "));
    made.set_value();
    // The callback, which uses the promises, has returned when its answer is here.
    EXPECT_THAT(key_peer.receive_until("}"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnVirtioSerial, connects_again_when_qemu_was_started_again) {
    start();
    guest().close();
    auto again = guest();
    again.send(post("Info", "{}"));
    EXPECT_THAT(again.receive_until("}"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnVirtioSerial, connects_again_after_garbage) {
    start();
    auto peer = guest();
    peer.send("\x01\x02\x03\r\n\r\n");
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 400 "));
    auto again = guest();
    again.send(post("Info", "{}"));
    EXPECT_THAT(again.receive_until("}"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnVirtioSerial, cuts_off_a_body_over_the_cap) {
    start();
    auto peer = guest();
    peer.send("POST /api/Notify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n");
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HostApiOnVirtioSerial, cuts_off_endless_headers) {
    start();
    auto peer = guest();
    peer.send("POST /api/Notify HTTP/1.1\r\n");
    while (peer.send("A: " + std::string(1000, 'b') + "\r\n") && !peer.is_answered_within(0ms)) {
    }
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 431 "));
}

TEST_F(HostApiOnVirtioSerial, passes_few_of_ten_thousand_events_on) {
    constexpr int count = 10'000;
    start();
    auto peer = guest();
    const auto began = EventGate::Clock::now();
    std::thread sender([&] {
        const auto request = notify("flood");
        std::string batch;
        for (int i = 0; i < 100; ++i)
            batch += request;
        for (int i = 0; i < count / 100; ++i)
            ASSERT_TRUE(peer.send(batch));
    });
    const int answers = peer.count_received("null", count);
    sender.join();
    const std::chrono::duration<double> took = EventGate::Clock::now() - began;
    EXPECT_TRUE(loop_->run_once(1s));
    EXPECT_EQ(answers, count);
    // Each that passes may come with one word on those dropped before it.
    EXPECT_LE(static_cast<double>(events_.size()),
              2 * (EventGate::burst + took.count() * EventGate::per_second + 1));
    EXPECT_GE(events_.size(), static_cast<std::size_t>(EventGate::burst));
}

TEST_F(HostApiOnVirtioSerial, delivers_nothing_after_its_end) {
    start();
    auto peer = guest();
    peer.send(notify("late"));
    peer.receive_until("null");
    api_.reset();
    EXPECT_TRUE(loop_->run_once(0ms));
    EXPECT_THAT(events_, SizeIs(0));
}

TEST_F(HostApiOnVirtioSerial, ends_while_a_request_is_half_sent) {
    start();
    auto peer = guest();
    peer.send("POST /api/Noti");
    api_.reset();
    EXPECT_EQ(peer.receive_all(), "");
}

/// What dstack's guests get: connections.
class HostApiOnListener : public HostApiTest {
protected:
    void start(const PeerCheck& check) {
        api_ = HostApi::serve_listener(*loop_, tests::listen_on_unix(folder_ / "socket"), check,
                                       "/api/", "test:", host_info, callbacks_);
    }
    RawPeer connect() {
        return RawPeer(tests::connect_to_unix(folder_ / "socket"));
    }
    tests::TemporaryDirectory folder_;
};

TEST_F(HostApiOnListener, answers_a_peer_that_passes_the_check) {
    start([](const auto&) { return true; });
    auto peer = connect();
    peer.send(post("Info", "{}"));
    EXPECT_THAT(peer.receive_until("}"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnListener, closes_on_a_peer_that_does_not_pass) {
    start([](const auto& peer) { return is_vsock_peer(peer, 5); });
    auto peer = connect();
    peer.send(notify("forged"));
    EXPECT_EQ(peer.receive_all(), "");
    api_.reset();
    EXPECT_THAT(events_, SizeIs(0));
}

TEST_F(HostApiOnListener, answers_while_another_connection_sends_nothing_whole) {
    start([](const auto&) { return true; });
    auto slow = connect();
    slow.send("POST /api/Noti");
    auto peer = connect();
    peer.send(notify("boot.progress"));
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnListener, answers_after_many_connections_that_say_nothing) {
    start([](const auto&) { return true; });
    for (int i = 0; i < 100; ++i)
        connect().close();
    auto peer = connect();
    peer.send(notify("boot.progress"));
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HostApiOnListener, answers_events_while_a_key_is_being_made) {
    std::promise<void> asked;
    std::promise<void> made;
    callbacks_.get_sealing_key = [&](const std::string&) -> Result<std::string> {
        asked.set_value();
        made.get_future().wait_for(tests::patience);
        return "{}";
    };
    start([](const auto&) { return true; });
    auto key_peer = connect();
    key_peer.send(post("GetSealingKey", R"({"quote":"00ff"})"));
    ASSERT_EQ(asked.get_future().wait_for(tests::patience), std::future_status::ready);
    auto peer = connect();
    peer.send(notify("boot.progress"));
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
    made.set_value();
    EXPECT_THAT(key_peer.receive_until("{}"), StartsWith("HTTP/1.1 200 "));
}

class HostApiOnLoopback : public HostApiTest {
protected:
    void start() {
        api_ = HostApi::serve_loopback(*loop_, host_info, callbacks_).value();
    }
    /// "http://10.0.2.2:40123/5f..e1/api" as the runner's side sees it.
    Result<net::HttpResponse> ask(const std::string& path) {
        const std::string start = "http://10.0.2.2:";
        EXPECT_THAT(api_->url(), StartsWith(start));
        const auto port = std::stoi(api_->url().substr(start.size()));
        net::HttpRequest request;
        request.method = "POST";
        request.path = path;
        return net::send_request(
            net::connect_tcp("127.0.0.1", static_cast<std::uint16_t>(port), tests::patience),
            request);
    }
    [[nodiscard]] std::string url_path() const {
        return api_->url().substr(api_->url().find('/', 7));
    }
};

TEST_F(HostApiOnLoopback, answers_below_the_path_of_its_url) {
    start();
    const auto response = ask(url_path() + "/Info");
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->status, 200);
}

TEST_F(HostApiOnLoopback, hides_behind_a_path_of_128_random_bits) {
    start();
    EXPECT_THAT(url_path(), testing::MatchesRegex("/[0-9a-f]{32}/api"));
}

TEST_F(HostApiOnLoopback, answers_404_to_who_does_not_know_the_path) {
    start();
    const auto response = ask("/api/Info");
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->status, 404);
}

TEST(VsockPeer, is_the_guest_when_the_kernel_says_its_cid) {
    sockaddr_storage peer{};
    auto& address = reinterpret_cast<sockaddr_vm&>(peer);
    address.svm_family = AF_VSOCK;
    address.svm_cid = 5;
    EXPECT_TRUE(is_vsock_peer(peer, 5));
}

TEST(VsockPeer, is_a_stranger_with_another_cid) {
    sockaddr_storage peer{};
    auto& address = reinterpret_cast<sockaddr_vm&>(peer);
    address.svm_family = AF_VSOCK;
    address.svm_cid = 6;
    EXPECT_FALSE(is_vsock_peer(peer, 5));
}

TEST(VsockPeer, is_a_stranger_on_another_kind_of_socket) {
    sockaddr_storage peer{};
    peer.ss_family = AF_UNIX;
    reinterpret_cast<sockaddr_vm&>(peer).svm_cid = 5;
    EXPECT_FALSE(is_vsock_peer(peer, 5));
}

} // namespace
} // namespace host_runner::hostapi
