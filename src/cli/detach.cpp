// SPDX-License-Identifier: Apache-2.0
#include "detach.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "guest_stream.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::cli {

namespace {

constexpr std::size_t max_log_shown = 64UL * 1024;

/// What is read back of the child's stderr; it moves, so its descriptor is kept.
struct ChildLog {
    std::string path;
    UniqueFd fd;
};

Result<ChildLog> make_log(const std::string& state_directory) {
    HR_CHECK(make_directories(state_directory));
    ChildLog log;
    log.path = join_path(state_directory, fmt::format("detached-{}.log", ::getpid()));
    log.fd.reset(::open(log.path.c_str(),
                        O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!log.fd)
        return fail_errno(fmt::format("Cannot make {}", log.path), errno);
    return log;
}

/// Our own program; /proc/self/exe where its file was replaced meanwhile.
std::string own_program() {
    std::array<char, 4096> path{};
    const auto length = ::readlink("/proc/self/exe", path.data(), path.size());
    const std::string target(path.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    return path_exists(target) ? target : "/proc/self/exe";
}

/// What the child has told so far.
struct Story {
    std::string id;
    std::vector<std::string> ports;
    bool has_got_there = false;
    bool was_created = false;
};

class Parent {
public:
    Parent(const Context& context, const instance::Registry& registry, ChildLog log)
        : registry_(registry), log_(std::move(log)), goal_(context.settings.text("wait")),
          json_(context.settings.text("output") == "json") {}

    VerbResult run(const std::vector<std::string>& raw_arguments) {
        HR_TRY(loop_, EventLoop::create());
        HR_TRY(auto events, launch(raw_arguments));
        // After the fork: the child must not inherit the block.
        HR_CHECK(loop_->watch_signals({SIGINT, SIGTERM}, [this](int) {
            // It may have ended by now, which its pipe tells.
            static_cast<void>(
                ::syscall(SYS_pidfd_send_signal, child_.pidfd.get(), SIGTERM, nullptr, 0));
        }));
        HR_CHECK(loop_->watch(events.get(), EPOLLIN,
                              [this, &events](std::uint32_t) { read_events(events.get()); }));
        HR_CHECK(loop_->run());
        loop_->unwatch(events.get());
        return story_.has_got_there ? report_success() : report_end();
    }

private:
    /// The end from which the child's events are read.
    Result<UniqueFd> launch(const std::vector<std::string>& raw_arguments) {
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC) != 0)
            return fail_errno("Cannot make a pipe", errno);
        UniqueFd from_child(ends[0]);
        const UniqueFd to_us(ends[1]);
        ProcessSpec spec;
        spec.argv.push_back(own_program());
        spec.argv.insert(spec.argv.end(), raw_arguments.begin(), raw_arguments.end());
        // The last one counts.
        spec.argv.insert(spec.argv.end(), {"--detach=false", "--output=json"});
        spec.stdout_fd = to_us.get();
        spec.stderr_fd = log_.fd.get();
        spec.new_session = true;
        spec.die_with_parent = false;
        spec.no_new_privileges = false; // it does what we would have done
        HR_TRY(child_, launcher_.launch(spec));
        return from_child;
    }

    void read_events(int fd) {
        std::array<char, 16384> buffer{};
        const auto count = ::read(fd, buffer.data(), buffer.size());
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (count <= 0)
            return loop_->stop();
        const bool goes_on = lines_.feed({buffer.data(), static_cast<std::size_t>(count)},
                                         [this](std::string_view line) {
                                             on_event(line);
                                             return !story_.has_got_there;
                                         });
        if (!goes_on)
            loop_->stop();
    }

    void on_event(std::string_view line) {
        const auto event = nlohmann::json::parse(line, nullptr, false);
        if (!event.is_object())
            return;
        const auto kind = event.value("event", "");
        const auto text = event.value("text", "");
        if (kind == "warning") {
            print_err(fmt::format("warning: {}\n", text));
        } else if (kind == "created") {
            story_.id = text;
            story_.was_created = true;
            keep_log();
        } else if (kind == "port") {
            story_.ports.push_back(text);
        } else if (kind == goal_) {
            story_.has_got_there = true;
        }
    }

    /// From now on the log belongs to the instance.
    void keep_log() {
        const auto target = join_path(registry_.paths(story_.id).directory, "runner.log");
        if (::rename(log_.path.c_str(), target.c_str()) != 0)
            print_err(fmt::format("warning: {} stays where it is: {}\n", log_.path,
                                  fail_errno("cannot be moved", errno).value().message));
    }

    VerbResult report_success() const {
        if (json_) {
            const nlohmann::ordered_json document = {{"schema_version", 1},
                                                     {"id", story_.id},
                                                     {"ports", story_.ports},
                                                     {"state", goal_}};
            HR_CHECK(print_out(document.dump(2) + "\n"));
            return to_int(ExitCode::success);
        }
        std::string text = story_.id + "\n";
        for (const auto& port : story_.ports)
            text += port + "\n";
        HR_CHECK(print_out(text));
        return to_int(ExitCode::success);
    }

    /// It closed its pipe before it got there: it has ended, and its stderr says why.
    VerbResult report_end() const {
        HR_TRY(const auto status, reap(child_));
        std::array<char, max_log_shown> words{};
        const auto length = ::pread(log_.fd.get(), words.data(), words.size(), 0);
        if (length > 0)
            print_err({words.data(), static_cast<std::size_t>(length)});
        if (!story_.was_created)
            HR_CHECK(remove_file(log_.path));
        if (!status.exited)
            return fail(ErrorCode::internal,
                        fmt::format("The detached run ended by {}", status.describe()));
        if (status.code == to_int(ExitCode::success))
            print_err(fmt::format("VM {} ended before it was {}\n", story_.id, goal_));
        return status.code;
    }

    const instance::Registry& registry_;
    ChildLog log_;
    std::string goal_; ///< The kind of event that is waited for: "started" or "ready".
    bool json_;
    ForkExecLauncher launcher_;
    std::unique_ptr<EventLoop> loop_;
    ChildProcess child_;
    LineSplitter lines_;
    Story story_;
};

} // namespace

VerbResult run_detached(const Context& context) {
    HR_TRY(const auto state, instance::state_directory());
    const instance::Registry registry(state);
    HR_TRY(auto log, make_log(state));
    return Parent(context, registry, std::move(log)).run(context.raw_arguments);
}

} // namespace host_runner::cli
