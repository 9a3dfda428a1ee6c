// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "host_runner/cli/formatter.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_image_verify(const Context& context) {
    HR_TRY(const auto image, image::load_image(context.argument(0)));
    HR_TRY(const auto checks, image::verify_image(image, image::VerifyDepth::full));
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->checks(image, checks)));
    const bool passed =
        std::all_of(checks.begin(), checks.end(), [](const auto& check) { return check.passed; });
    if (!passed)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("Image {} is not what it says it is", image.directory),
                    "import it again from a source that you trust");
    return to_int(ExitCode::success);
}

VerbResult run_verb_image_inspect(const Context& context) {
    HR_TRY(const auto image, image::load_image(context.argument(0)));
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->image(image)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli
