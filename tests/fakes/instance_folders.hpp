// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A state folder for one test, and records and processes to fill it with.

#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/instance/record.hpp"
#include "host_runner/instance/registry.hpp"

namespace host_runner::tests {

inline instance::Record make_record(const std::string& id, const std::string& name = {}) {
    instance::Record record;
    record.id = id;
    record.name = name;
    record.created_ms = 1'700'000'000'000;
    record.tee = "none";
    record.cpus = 2;
    record.memory_bytes = 512ULL << 20U;
    return record;
}

class StateFolder {
public:
    [[nodiscard]] instance::Registry registry() const {
        return instance::Registry(dir_ / "s");
    }
    /// The folder of a stopped instance.
    instance::InstancePaths add(const instance::Record& record) const {
        auto paths = registry().paths(record.id);
        if (!make_directories(paths.directory) ||
            !write_file_atomic(paths.record(), encode_record(record)) ||
            !write_file_atomic(paths.lock(), ""))
            throw std::runtime_error("cannot make the instance");
        return paths;
    }

private:
    TemporaryDirectory dir_;
};

/// A child process that runs `body` and then waits to be ended; constructed when `body` is done.
class ForkedProcess {
public:
    /// @param body what the child does; its result becomes result()
    explicit ForkedProcess(const std::function<char()>& body) {
        int fds[2];
        if (::pipe(fds) != 0)
            throw std::runtime_error("pipe failed");
        pid_ = ::fork();
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            const char result = body();
            if (::write(fds[1], &result, 1) != 1)
                ::_exit(1);
            for (;;)
                ::pause();
        }
        ::close(fds[1]);
        if (pid_ < 0 || ::read(fds[0], &result_, 1) != 1)
            throw std::runtime_error("the child did not answer");
        ::close(fds[0]);
    }
    ForkedProcess(const ForkedProcess&) = delete;
    ForkedProcess& operator=(const ForkedProcess&) = delete;
    ~ForkedProcess() {
        kill();
    }

    [[nodiscard]] char result() const {
        return result_;
    }
    /// kill -9, and gone when this returns.
    void kill() {
        if (pid_ <= 0)
            return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }

private:
    pid_t pid_ = -1;
    char result_ = '?';
};

} // namespace host_runner::tests
