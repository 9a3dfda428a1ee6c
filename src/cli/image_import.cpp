// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/import.hpp"

#include <algorithm>
#include <chrono>
#include <optional>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/process.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/cli/formatter.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

using namespace std::chrono_literals;

constexpr auto progress_interval = 500ms;
/// A release tarball with a GPU driver has some 1 GiB.
constexpr std::uint64_t max_download_bytes = std::uint64_t{16} << 30;

std::uint64_t size_of(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

/// By curl: certificates, proxies and redirects are its business, and no TLS library is linked into
/// the process that `run` starts. What it fetched is trusted by its digest only.
Result<void> download(const std::string& url, const std::string& path,
                      const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"curl",
                 "--silent",
                 "--show-error",
                 "--fail",
                 "--location",
                 "--max-redirs",
                 "5",
                 "--proto",
                 "=http,https",
                 "--max-filesize",
                 std::to_string(max_download_bytes),
                 "--connect-timeout",
                 "30",
                 "--speed-limit",
                 "1024",
                 "--speed-time",
                 "60",
                 "--output",
                 path,
                 "--",
                 url};
    spec.stderr_fd = STDERR_FILENO;
    auto child = launcher.launch(spec);
    if (!child) {
        auto error = std::move(child).error();
        if (error.code == ErrorCode::not_found)
            error.hint = "install curl (scripts/setup does), or download the file yourself";
        return tl::unexpected<Error>(std::move(error));
    }
    for (;;) {
        const auto status = wait_for_exit(*child, progress_interval);
        progress(size_of(path), 0);
        if (!status && status.error().code == ErrorCode::timeout)
            continue;
        if (!status)
            return tl::unexpected<Error>(status.error());
        if (status->exited && status->code == 0)
            return {};
        return fail(ErrorCode::unavailable,
                    fmt::format("Cannot download {}: curl ended with {}", url, status->describe()),
                    "curl says why in the line above");
    }
}

/// Plain lines on stderr, at most one a second for each step.
class ProgressLines {
public:
    void operator()(image::ImportStep step, std::uint64_t done, std::uint64_t total) {
        const auto now = std::chrono::steady_clock::now();
        if (step == last_step_ && now < next_)
            return;
        last_step_ = step;
        next_ = now + 1s;
        print_err(total == 0
                      ? fmt::format("{}: {}\n", image::to_string(step), format_size_rounded(done))
                      : fmt::format("{}: {} of {}\n", image::to_string(step),
                                    format_size_rounded(done), format_size_rounded(total)));
    }

private:
    std::optional<image::ImportStep> last_step_;
    std::chrono::steady_clock::time_point next_;
};

} // namespace

VerbResult run_verb_image_import(const Context& context) {
    const auto& settings = context.settings;
    if (!settings.is_set("sha256"))
        return fail(ErrorCode::invalid_argument,
                    "--sha256 is missing: the digest of the archive, from whom you trust",
                    "for example host_runner image import image.tar.gz --sha256 HASH");
    ProgressLines progress;
    HR_TRY(const auto image,
           image::import_image(
               {context.argument(0), settings.text("sha256"), settings.text("into")}, download,
               [&](image::ImportStep step, std::uint64_t done, std::uint64_t total) {
                   progress(step, done, total);
               }));
    HR_CHECK(print_out(make_formatter(settings.text("output"))->image(image)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli
