// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/import.hpp"

#include <filesystem>
#include <fstream>
#include <functional>

#include <archive.h>
#include <archive_entry.h>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "fakes/image_directory.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::ImageDirectory;

struct Entry {
    std::string name;
    std::string content;
    unsigned type = AE_IFREG;
    std::string link; ///< A symbolic link's target, or a hard link's with type AE_IFREG.
};

using AddFilter = int (*)(archive*);

void write_archive(const std::string& path, const std::vector<Entry>& entries,
                   AddFilter filter = archive_write_add_filter_gzip) {
    archive* const writer = archive_write_new();
    filter(writer);
    archive_write_set_format_pax_restricted(writer);
    ASSERT_EQ(archive_write_open_filename(writer, path.c_str()), ARCHIVE_OK);
    for (const auto& entry : entries) {
        archive_entry* const header = archive_entry_new();
        archive_entry_set_pathname(header, entry.name.c_str());
        archive_entry_set_filetype(header, entry.type);
        archive_entry_set_perm(header, 04777);
        archive_entry_set_size(header, static_cast<la_int64_t>(entry.content.size()));
        if (!entry.link.empty() && entry.type == AE_IFLNK)
            archive_entry_set_symlink(header, entry.link.c_str());
        else if (!entry.link.empty())
            archive_entry_set_hardlink(header, entry.link.c_str());
        ASSERT_EQ(archive_write_header(writer, header), ARCHIVE_OK) << archive_error_string(writer);
        archive_write_data(writer, entry.content.data(), entry.content.size());
        archive_entry_free(header);
    }
    ASSERT_EQ(archive_write_free(writer), ARCHIVE_OK);
}

std::string hash_of(const std::string& path) {
    return crypto::to_hex(crypto::sha256_file(path).value());
}

class ImportImage : public testing::Test {
protected:
    /// The files of a good image, each name with `prefix` before it.
    static std::vector<Entry> image_entries(const std::string& prefix) {
        ImageDirectory directory;
        directory.seal();
        std::vector<Entry> entries;
        for (const auto& item : std::filesystem::directory_iterator(directory.path())) {
            const auto name = item.path().filename().string();
            entries.push_back({prefix + name, directory.read(name), AE_IFREG, {}});
        }
        return entries;
    }

    [[nodiscard]] Result<Image> import(const std::string& file,
                                       const ImportProgress& progress = {}) const {
        return import_image({file, hash_of(file), images}, no_download, progress);
    }

    [[nodiscard]] Result<Image> import(const std::vector<Entry>& entries) const {
        const auto file = folder / "dstack-0.5.6.tar.gz";
        write_archive(file, entries);
        return import(file);
    }

    [[nodiscard]] std::vector<std::string> left() const {
        return list_directory(images).value();
    }

    static Result<void> no_download(const std::string& url, const std::string&,
                                    const std::function<void(std::uint64_t, std::uint64_t)>&) {
        ADD_FAILURE() << "fetched " << url;
        return fail(ErrorCode::internal, "no download expected");
    }

    tests::TemporaryDirectory folder;
    std::string images = [this] {
        std::filesystem::create_directory(folder / "images");
        return folder / "images";
    }();
};

TEST_F(ImportImage, takes_an_archive_with_one_folder) {
    auto entries = image_entries("dstack-0.5.6/");
    entries.insert(entries.begin(), {"dstack-0.5.6/", "", AE_IFDIR, {}});
    const auto image = import(entries);
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->directory, images + "/dstack-0.5.6");
    EXPECT_THAT(left(), ElementsAre("dstack-0.5.6"));
}

TEST_F(ImportImage, names_a_flat_archive_after_its_file) {
    auto entries = image_entries("./");
    entries.insert(entries.begin(), {"./", "", AE_IFDIR, {}});
    const auto image = import(entries);
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->name, "dstack-0.5.6");
}

TEST_F(ImportImage, takes_xz_and_zstd) {
    for (const auto& [ending, filter] :
         {std::pair<const char*, AddFilter>{".tar.xz", archive_write_add_filter_xz},
          {".tar.zst", archive_write_add_filter_zstd}}) {
        const auto file = folder / ("dstack-0.5.6" + std::string(ending));
        write_archive(file, image_entries("./"), filter);
        const auto image = import(file);
        ASSERT_TRUE(image) << ending << ": " << image.error().describe();
        std::filesystem::remove_all(image->directory);
    }
}

TEST_F(ImportImage, ignores_the_modes_of_the_archive) {
    ASSERT_TRUE(import(image_entries("dstack-0.5.6/")));
    using std::filesystem::perms;
    for (const auto& item : std::filesystem::directory_iterator(images + "/dstack-0.5.6"))
        EXPECT_EQ(item.status().permissions() &
                      (perms::set_uid | perms::owner_exec | perms::others_write),
                  perms::none)
            << item.path();
}

TEST_F(ImportImage, fetches_a_url) {
    const auto file = folder / "source";
    write_archive(file, image_entries(""));
    std::string fetched;
    const auto image = import_image(
        {"https://example.org/releases/dstack-0.5.6.tar.gz?raw=1", hash_of(file), images},
        [&](const std::string& url, const std::string& path, const auto& progress) {
            fetched = url;
            std::filesystem::copy_file(file, path);
            progress(1, 2);
            return Result<void>();
        });
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(fetched, "https://example.org/releases/dstack-0.5.6.tar.gz?raw=1");
    EXPECT_EQ(image->name, "dstack-0.5.6");
    EXPECT_THAT(left(), ElementsAre("dstack-0.5.6"));
}

TEST_F(ImportImage, passes_on_a_failed_download_and_leaves_nothing) {
    const auto image =
        import_image({"https://example.org/dstack-0.5.6.tar.gz", std::string(64, '0'), images},
                     [](const std::string&, const std::string& path, const auto&) -> Result<void> {
                         std::ofstream(path) << "half";
                         return fail(ErrorCode::unavailable, "No answer");
                     });
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::unavailable);
    EXPECT_THAT(left(), IsEmpty());
}

TEST_F(ImportImage, reports_each_step) {
    const auto file = folder / "dstack-0.5.6.tar.gz";
    write_archive(file, image_entries(""));
    std::vector<std::string> steps;
    ASSERT_TRUE(import(file, [&](ImportStep step, std::uint64_t done, std::uint64_t total) {
        EXPECT_TRUE(total == 0 || done <= total);
        if (steps.empty() || steps.back() != to_string(step))
            steps.emplace_back(to_string(step));
    }));
    EXPECT_THAT(steps, ElementsAre("hash", "unpack", "verify"));
}

TEST_F(ImportImage, refuses_another_digest_before_unpacking) {
    const auto file = folder / "dstack-0.5.6.tar.gz";
    write_archive(file, image_entries(""));
    const auto image = import_image(
        {file, std::string(64, '1'), images}, no_download,
        [](ImportStep step, std::uint64_t, std::uint64_t) { EXPECT_EQ(step, ImportStep::hash); });
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(image.error().message, HasSubstr(std::string(64, '1')));
    EXPECT_THAT(left(), IsEmpty());
}

TEST_F(ImportImage, refuses_a_digest_that_is_none) {
    const auto image = import_image({"x.tar.gz", "abc", images}, no_download);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::invalid_argument);
}

struct BadEntry {
    const char* name;
    Entry entry;
};

class ImportImageRefuses : public ImportImage, public testing::WithParamInterface<BadEntry> {};

TEST_P(ImportImageRefuses, and_leaves_nothing) {
    auto entries = image_entries("dstack-0.5.6/");
    entries.push_back(GetParam().entry);
    const auto image = import(entries);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data) << image.error().describe();
    EXPECT_THAT(image.error().message, HasSubstr("is not unpacked"));
    EXPECT_THAT(left(), IsEmpty());
    EXPECT_FALSE(std::filesystem::exists(folder / "evil"));
}

INSTANTIATE_TEST_SUITE_P(
    Each, ImportImageRefuses,
    testing::Values(
        BadEntry{"parent", {"../evil", "x", AE_IFREG, {}}},
        BadEntry{"parent_inside", {"dstack-0.5.6/..", "", AE_IFDIR, {}}},
        BadEntry{"absolute", {"/tmp/host-runner-evil", "x", AE_IFREG, {}}},
        BadEntry{"deep", {"dstack-0.5.6/a/b", "x", AE_IFREG, {}}},
        BadEntry{"symbolic_link_out", {"dstack-0.5.6/link", "", AE_IFLNK, "/etc/passwd"}},
        BadEntry{"symbolic_link_inside", {"dstack-0.5.6/link", "", AE_IFLNK, "bzImage"}},
        BadEntry{"hard_link", {"dstack-0.5.6/link", "", AE_IFREG, "dstack-0.5.6/bzImage"}},
        BadEntry{"device", {"dstack-0.5.6/null", "", AE_IFCHR, {}}},
        BadEntry{"fifo", {"dstack-0.5.6/pipe", "", AE_IFIFO, {}}},
        BadEntry{"control_character", {"dstack-0.5.6/a\nb", "x", AE_IFREG, {}}},
        BadEntry{"twice", {"dstack-0.5.6/bzImage", "another kernel", AE_IFREG, {}}}),
    [](const auto& test) { return test.param.name; });

TEST_F(ImportImage, refuses_too_many_entries) {
    auto entries = image_entries("dstack-0.5.6/");
    for (int i = 0; i < 300; ++i)
        entries.push_back({"dstack-0.5.6/file" + std::to_string(i), "", AE_IFREG, {}});
    const auto image = import(entries);
    ASSERT_FALSE(image);
    EXPECT_THAT(image.error().message, HasSubstr("entries"));
}

TEST_F(ImportImage, refuses_a_size_above_the_cap) {
    // A header alone: the cap must act before any data is there. libarchive writes no archive that
    // lacks the data, so the header is made here. Source: tar(5), GNU tar archives
    std::string header(512, '\0');
    header.replace(0, 3, "big");
    header.replace(100, 7, "0000644");
    header[124] = '\x80'; // the size is in base 256
    for (unsigned i = 0; i < 8; ++i)
        header[135 - i] = static_cast<char>((max_unpacked_bytes + 1) >> (8 * i));
    header[156] = '0';
    header.replace(257, 8, std::string_view("ustar  \0", 8));
    header.replace(148, 8, 8, ' '); // the sum counts its own field as spaces
    unsigned sum = 0;
    for (const char byte : header)
        sum += static_cast<unsigned char>(byte);
    header.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
    const auto file = folder / "dstack-0.5.6.tar.gz";
    std::ofstream(file) << header;
    const auto image = import(file);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(image.error().message, HasSubstr("unpacks to more than"));
}

TEST_F(ImportImage, refuses_what_is_no_archive) {
    const auto file = folder / "dstack-0.5.6.tar.gz";
    std::ofstream(file) << "this is text";
    const auto image = import(file);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
}

TEST_F(ImportImage, refuses_a_truncated_archive) {
    const auto file = folder / "dstack-0.5.6.tar.gz";
    write_archive(file, image_entries(""));
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    EXPECT_FALSE(import(file));
    EXPECT_THAT(left(), IsEmpty());
}

TEST_F(ImportImage, refuses_an_archive_without_image) {
    const auto image = import({{"a", "1", AE_IFREG, {}}, {"b", "2", AE_IFREG, {}}});
    ASSERT_FALSE(image);
    EXPECT_THAT(image.error().message, HasSubstr("metadata.json"));
}

TEST_F(ImportImage, refuses_an_image_that_fails_its_checks) {
    auto entries = image_entries("dstack-0.5.6/");
    for (auto& entry : entries)
        if (entry.name.ends_with("bzImage"))
            entry.content = "another kernel";
    const auto image = import(entries);
    ASSERT_FALSE(image);
    EXPECT_THAT(image.error().message, HasSubstr("sha256 bzImage"));
    EXPECT_THAT(left(), IsEmpty());
}

TEST_F(ImportImage, never_replaces_an_image) {
    std::filesystem::create_directory(images + "/dstack-0.5.6");
    const auto image = import(image_entries("dstack-0.5.6/"));
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::already_exists);
    EXPECT_THAT(left(), ElementsAre("dstack-0.5.6"));
}

TEST_F(ImportImage, removes_what_an_interrupted_import_left) {
    const auto file = folder / "dstack-0.5.6.tar.gz";
    write_archive(file, image_entries("dstack-0.5.6/"));
    const auto staging = images + "/.import-" + hash_of(file).substr(0, 16);
    std::filesystem::create_directories(staging + "/unpacked/dstack-0.5.6");
    std::ofstream(staging + "/unpacked/dstack-0.5.6/bzImage") << "half a ke";
    std::ofstream(staging + "/archive") << "half";
    const auto image = import(file);
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_THAT(left(), ElementsAre("dstack-0.5.6"));
}

TEST_F(ImportImage, refuses_a_second_import_of_the_same_archive_at_a_time) {
    const auto file = folder / "dstack-0.5.6.tar.gz";
    write_archive(file, image_entries("dstack-0.5.6/"));
    const auto staging = images + "/.import-" + hash_of(file).substr(0, 16);
    std::filesystem::create_directory(staging);
    const auto lock = try_lock_file(staging + "/lock");
    ASSERT_TRUE(lock);
    const auto image = import(file);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::already_exists);
    EXPECT_TRUE(std::filesystem::exists(staging));
}

TEST_F(ImportImage, refuses_a_name_that_is_no_image_name) {
    const auto file = folder / "my image.tar.gz";
    write_archive(file, image_entries(""));
    const auto image = import(file);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(image.error().message, HasSubstr("my image"));
}

} // namespace
} // namespace host_runner::image
