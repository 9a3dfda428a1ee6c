// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/run_view.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <signal.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/units.hpp"

namespace host_runner::cli {

namespace {

using instance::EndReason;
using instance::RunEvent;
using Kind = RunEvent::Kind;

/// The sentence for an event; empty for what the views show in their own way.
std::string sentence(const RunEvent& event) {
    switch (event.kind) {
    case Kind::warning:
        return fmt::format("warning: {}", event.text);
    case Kind::notice:
        return event.text;
    case Kind::created:
        return fmt::format("instance {}", event.text);
    case Kind::port:
        return fmt::format("port {}", event.text);
    case Kind::started:
        return fmt::format("QEMU runs, pid {}", event.text);
    case Kind::progress:
        return fmt::format("guest: {}", event.text);
    case Kind::boot_error:
        return fmt::format("guest reports an error: {}", event.text);
    case Kind::ready:
        return "ready; Ctrl-C stops the VM";
    case Kind::stop_step:
        return fmt::format("stopping: {}, at most {}", event.text, format_duration(event.limit));
    case Kind::restart:
        return event.text;
    case Kind::ended:
        break;
    }
    return {};
}

std::string stamped(std::chrono::milliseconds elapsed, std::string_view text) {
    return fmt::format("[{:>9}] {}\n", format_duration(elapsed), text);
}

void show_end(const Sinks& sinks, std::chrono::milliseconds elapsed,
              const instance::RunOutcome& outcome) {
    const auto line = stamped(elapsed, fmt::format("ended: {}", describe_end(outcome.end)));
    (outcome.end.exit_code == ExitCode::success ? sinks.out : sinks.err)(line);
}

class PlainView final : public RunView {
public:
    explicit PlainView(Sinks sinks) : sinks_(std::move(sinks)) {}

    void on_event(const RunEvent& event) override {
        elapsed_ = event.elapsed;
        if (event.kind != Kind::ended)
            (event.kind == Kind::warning ? sinks_.err
                                         : sinks_.out)(stamped(event.elapsed, sentence(event)));
    }
    void on_outcome(const instance::RunOutcome& outcome) override {
        show_end(sinks_, elapsed_, outcome);
    }
    void on_error(const Error&) override {} // main() prints it

private:
    Sinks sinks_;
    std::chrono::milliseconds elapsed_{0};
};

class LiveView final : public RunView {
public:
    LiveView(Sinks sinks, std::size_t columns) : sinks_(std::move(sinks)), columns_(columns) {}
    LiveView(const LiveView&) = delete;
    LiveView& operator=(const LiveView&) = delete;
    ~LiveView() override {
        stop_ticking();
    }

    void on_event(const RunEvent& event) override {
        const std::lock_guard lock(mutex_);
        began_ = Clock::now() - event.elapsed;
        switch (event.kind) {
        case Kind::ended:
            set_live({});
            return;
        case Kind::ready:
            set_live({});
            break;
        case Kind::progress:
            set_live(sentence(event));
            return;
        case Kind::stop_step:
            set_live(fmt::format("stopping: {}", event.text));
            break;
        case Kind::created:
            set_live("preparing");
            break;
        case Kind::started:
        case Kind::restart:
            set_live("booting");
            break;
        default:
            break;
        }
        clear();
        (event.kind == Kind::warning ? sinks_.err
                                     : sinks_.out)(stamped(event.elapsed, sentence(event)));
        draw();
    }
    void on_outcome(const instance::RunOutcome& outcome) override {
        stop_ticking();
        show_end(sinks_, elapsed(), outcome);
    }
    void on_error(const Error&) override {
        stop_ticking();
    }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] std::chrono::milliseconds elapsed() const {
        return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began_);
    }

    // All below but stop_ticking() need the lock.

    void set_live(std::string text) {
        live_ = std::move(text);
        if (live_.empty())
            return clear();
        if (!ticker_.joinable())
            start_ticking();
        wake_.notify_all();
        draw();
    }

    void clear() {
        if (std::exchange(is_drawn_, false))
            sinks_.out("\r\x1b[K");
    }

    void draw() {
        if (live_.empty())
            return;
        auto line = fmt::format("{:>11} {}", format_duration(elapsed()), live_);
        if (columns_ > 0 && line.size() >= columns_) {
            auto end = columns_ - 1;
            while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80)
                --end; // not inside a UTF-8 sequence
            line.resize(end);
        }
        is_drawn_ = true;
        sinks_.out(fmt::format("\r{}\x1b[K", line));
    }

    void start_ticking() {
        // The run's signals are for its main thread.
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        ticker_ = std::thread([this] {
            std::unique_lock lock(mutex_);
            while (!done_) {
                if (live_.empty())
                    wake_.wait(lock, [this] { return done_ || !live_.empty(); });
                else if (!wake_.wait_for(lock, tick, [this] { return done_; }))
                    draw();
            }
        });
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void stop_ticking() {
        {
            const std::lock_guard lock(mutex_);
            done_ = true;
            live_.clear();
            clear();
        }
        wake_.notify_all();
        if (ticker_.joinable())
            ticker_.join();
    }

    static constexpr std::chrono::milliseconds tick{200};
    Sinks sinks_;
    std::size_t columns_;
    std::mutex mutex_; // guards all below
    std::condition_variable wake_;
    std::thread ticker_;
    std::string live_; // empty: nothing to redraw
    Clock::time_point began_ = Clock::now();
    bool is_drawn_ = false;
    bool done_ = false;
};

class JsonView final : public RunView {
public:
    explicit JsonView(Sinks sinks) : sinks_(std::move(sinks)) {}

    void on_event(const RunEvent& event) override {
        last_ = event;
        if (event.kind == Kind::ended)
            return; // told by on_outcome(), which knows more
        auto line = object(to_string(event.kind));
        line["text"] = event.text;
        if (event.kind == Kind::stop_step)
            line["limit_ms"] = event.limit.count();
        print(line);
    }
    void on_outcome(const instance::RunOutcome& outcome) override {
        auto line = object(to_string(Kind::ended));
        line["text"] = outcome.end.detail;
        line["reason"] = to_string(outcome.end.reason);
        line["exit_code"] = static_cast<int>(outcome.end.exit_code);
        print(line);
    }
    void on_error(const Error& error) override {
        auto line = object("error");
        line["text"] = error.message;
        line["code"] = to_string(error.code);
        line["hint"] = error.hint;
        line["exit_code"] = static_cast<int>(exit_code_for(error.code));
        print(line);
    }

private:
    [[nodiscard]] nlohmann::ordered_json object(std::string_view kind) const {
        return {{"schema_version", 1}, {"event", kind}, {"elapsed_ms", last_.elapsed.count()}};
    }
    void print(const nlohmann::ordered_json& line) const {
        sinks_.out(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    }

    Sinks sinks_;
    RunEvent last_;
};

std::string_view words_for(EndReason reason) {
    switch (reason) {
    case EndReason::guest_shutdown:
        return "the guest powered off";
    case EndReason::stop_requested:
        return "stopped as asked";
    case EndReason::killed_by_force:
        return "killed as the last step of the stop";
    case EndReason::guest_reset:
        return "the guest reset itself";
    case EndReason::guest_panic:
        return "the guest's kernel panicked";
    case EndReason::guest_boot_error:
        return "the guest could not start";
    case EndReason::qemu_start_failed:
        return "QEMU refused to start";
    case EndReason::qemu_died:
        return "QEMU ended by itself";
    case EndReason::start_failed:
        return "the start failed before QEMU";
    case EndReason::runner_died:
        return "the runner died, and the VM with it";
    }
    return "?";
}

} // namespace

std::unique_ptr<RunView> make_plain_view(Sinks sinks) {
    return std::make_unique<PlainView>(std::move(sinks));
}

std::unique_ptr<RunView> make_live_view(Sinks sinks, std::size_t columns) {
    return std::make_unique<LiveView>(std::move(sinks), columns);
}

std::unique_ptr<RunView> make_json_view(Sinks sinks) {
    return std::make_unique<JsonView>(std::move(sinks));
}

std::string describe_end(const instance::End& end) {
    return end.detail.empty() ? std::string(words_for(end.reason))
                              : fmt::format("{}: {}", words_for(end.reason), end.detail);
}

} // namespace host_runner::cli
