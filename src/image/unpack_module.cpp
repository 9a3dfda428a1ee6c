// SPDX-License-Identifier: Apache-2.0
#include "unpack_module.hpp"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>

#include <fmt/format.h>

namespace {

constexpr std::size_t block_bytes = 1U << 20;
constexpr std::size_t max_name_bytes = 255;

struct ReadCloser {
    void operator()(archive* reader) const noexcept {
        archive_read_free(reader);
    }
};
struct WriteCloser {
    void operator()(archive* writer) const noexcept {
        archive_write_free(writer);
    }
};

/// Ends the unpacking; caught in host_runner_unpack() and seen by nobody else.
struct Stop {
    int status;
    int error_number;
    std::string message;
};

[[noreturn]] void refuse(std::string message) {
    throw Stop{host_runner_unpack_refused, 0, std::move(message)};
}

/// "./dstack-0.5.3/bzImage" -> "dstack-0.5.3/bzImage"; the folder itself -> "".
std::string clean_name(const archive_entry* entry) {
    const char* raw = archive_entry_pathname(const_cast<archive_entry*>(entry));
    if (raw == nullptr)
        refuse("it holds an entry without a readable name");
    std::string_view name(raw);
    while (name.starts_with("./"))
        name.remove_prefix(2);
    while (name.ends_with('/') && name.size() > 1)
        name.remove_suffix(1);
    if (name == ".")
        return {};
    const auto shown = fmt::format("\"{}\"", std::string_view(raw).substr(0, max_name_bytes));
    if (name.starts_with('/'))
        refuse(fmt::format("entry {} has an absolute name", shown));
    if (std::count(name.begin(), name.end(), '/') > 1)
        refuse(fmt::format("entry {} lies deeper than one folder", shown));
    std::string_view rest = name;
    while (!rest.empty()) {
        const auto slash = std::min(rest.find('/'), rest.size());
        const auto part = rest.substr(0, slash);
        rest.remove_prefix(std::min(slash + 1, rest.size()));
        const bool printable =
            std::all_of(part.begin(), part.end(), [](char c) { return c >= ' ' && c <= '~'; });
        if (part.empty() || part == "." || part == ".." || part.size() > max_name_bytes ||
            !printable)
            refuse(fmt::format("entry {} is no name of a file in an image", shown));
    }
    return std::string(name);
}

class Unpacker {
public:
    explicit Unpacker(HostRunnerUnpackRequest& request)
        : request_(request), reader_(archive_read_new()), writer_(archive_write_disk_new()) {
        archive* const reader = reader_.get();
        // Only what is linked in: a filter that libarchive would run as a program answers WARN.
        if (archive_read_support_filter_gzip(reader) != ARCHIVE_OK ||
            archive_read_support_filter_xz(reader) != ARCHIVE_OK ||
            archive_read_support_filter_zstd(reader) != ARCHIVE_OK ||
            archive_read_support_format_tar(reader) != ARCHIVE_OK)
            throw Stop{host_runner_unpack_failed, ENOSYS, "libarchive lacks gzip, xz or zstd"};
        archive_write_disk_set_options(writer_.get(), ARCHIVE_EXTRACT_SECURE_SYMLINKS |
                                                          ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                                                          ARCHIVE_EXTRACT_NO_OVERWRITE);
    }

    void run() {
        if (archive_read_open_fd(reader_.get(), request_.archive_fd, block_bytes) != ARCHIVE_OK)
            fail_reading();
        for (;;) {
            archive_entry* entry = nullptr;
            const int result = archive_read_next_header(reader_.get(), &entry);
            if (result == ARCHIVE_EOF)
                break;
            if (result != ARCHIVE_OK)
                fail_reading();
            if (++entries_ > request_.max_entries)
                refuse(fmt::format("it holds more than {} entries", request_.max_entries));
            unpack(entry);
        }
        if (archive_write_close(writer_.get()) != ARCHIVE_OK)
            fail_writing("the folder");
        if (entries_ == 0)
            refuse("it holds nothing");
    }

private:
    void unpack(archive_entry* entry) {
        const auto name = clean_name(entry);
        const auto type = archive_entry_filetype(entry);
        if (archive_entry_hardlink(entry) != nullptr || (type != AE_IFREG && type != AE_IFDIR))
            refuse(fmt::format("entry \"{}\" is neither a regular file nor a folder", name));
        if (name.empty()) {
            if (type == AE_IFDIR)
                return; // "./", the archive's own folder
            refuse("it holds a file without a name");
        }
        if (type == AE_IFREG)
            count_size(entry, name);
        // The archive's owner, mode bits and flags mean nothing here.
        archive_entry_set_pathname(entry, fmt::format("{}/{}", request_.folder, name).c_str());
        archive_entry_set_perm(entry, type == AE_IFDIR ? 0755 : 0644);
        if (archive_write_header(writer_.get(), entry) != ARCHIVE_OK)
            fail_writing(name);
        if (type == AE_IFREG)
            copy_data(name, archive_entry_size(entry));
        if (archive_write_finish_entry(writer_.get()) != ARCHIVE_OK)
            fail_writing(name);
        report_progress();
    }

    void count_size(archive_entry* entry, const std::string& name) {
        const auto size = archive_entry_size(entry);
        if (archive_entry_size_is_set(entry) == 0 || size < 0)
            refuse(fmt::format("entry \"{}\" does not say its size", name));
        if (static_cast<std::uint64_t>(size) > request_.max_bytes - total_bytes_)
            refuse(fmt::format("it unpacks to more than {} bytes", request_.max_bytes));
        total_bytes_ += static_cast<std::uint64_t>(size);
    }

    void copy_data(const std::string& name, la_int64_t size) {
        for (;;) {
            const void* data = nullptr;
            std::size_t length = 0;
            la_int64_t offset = 0;
            const int result = archive_read_data_block(reader_.get(), &data, &length, &offset);
            if (result == ARCHIVE_EOF)
                return;
            if (result != ARCHIVE_OK)
                fail_reading();
            if (offset < 0 || offset > size || length > static_cast<std::size_t>(size - offset))
                refuse(fmt::format("entry \"{}\" is longer than it says", name));
            if (archive_write_data_block(writer_.get(), data, length, offset) < ARCHIVE_OK)
                fail_writing(name);
            report_progress();
        }
    }

    void report_progress() const {
        if (request_.progress != nullptr)
            request_.progress(request_.context,
                              static_cast<std::uint64_t>(archive_filter_bytes(reader_.get(), -1)));
    }

    [[noreturn]] void fail_reading() const {
        const char* const text = archive_error_string(reader_.get());
        refuse(fmt::format("it cannot be read as a .tar.gz, .tar.xz or .tar.zst archive: {}",
                           text == nullptr ? "unknown cause" : text));
    }

    [[noreturn]] void fail_writing(const std::string& name) const {
        const int number = archive_errno(writer_.get());
        const char* const text = archive_error_string(writer_.get());
        if (number == EEXIST)
            refuse(fmt::format("it holds \"{}\" twice", name));
        throw Stop{host_runner_unpack_failed, number > 0 ? number : EIO,
                   fmt::format("{}: {}", name, text == nullptr ? "unknown cause" : text)};
    }

    HostRunnerUnpackRequest& request_;
    std::unique_ptr<archive, ReadCloser> reader_;
    std::unique_ptr<archive, WriteCloser> writer_;
    std::uint64_t total_bytes_ = 0;
    std::uint32_t entries_ = 0;
};

int report(HostRunnerUnpackRequest& request, const Stop& stop) noexcept {
    const auto length = std::min(stop.message.size(), sizeof request.message - 1);
    std::copy_n(stop.message.begin(), length, std::begin(request.message));
    request.message[length] = '\0';
    request.error_number = stop.error_number;
    return stop.status;
}

} // namespace

extern "C" [[gnu::visibility("default")]] int
host_runner_unpack(HostRunnerUnpackRequest* request) noexcept {
    try {
        Unpacker(*request).run();
        return host_runner_unpack_done;
    } catch (const Stop& stop) {
        return report(*request, stop);
    } catch (const std::exception& exception) {
        return report(*request, {host_runner_unpack_failed, EIO, exception.what()});
    }
}
