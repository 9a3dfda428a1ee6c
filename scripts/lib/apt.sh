# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Packages of chosen Debian suites through apt's own machinery, in a folder of ours. Nothing is installed on the host, no
# root is needed. Sourced, never run:
#
#     apt_root_make "$cache/apt" amd64 "deb" trixie trixie-security forky
#     apt_root_update "$cache/apt"
#     version=$(apt_root_candidate "$cache/apt" busybox-static trixie)
#     apt_root_download "$cache/apt" busybox-static "$version" SHA256 "$cache/packages"
#
# Mirror, proxies, certificates and credentials are those of the host's own apt. Signatures are checked against Debian's
# archive keyring, and every package against the SHA-256 that the caller gives.
#
#     HOST_RUNNER_DEBIAN_MIRROR            archive to use instead of the host's, e.g. on a host that is not Debian
#     HOST_RUNNER_DEBIAN_SECURITY_MIRROR   the same for the -security suites

# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

_apt_lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# _apt_mirror debian|debian-security: the URI of that archive in the host's apt configuration.
_apt_mirror() {
    local name=$1 uri override=HOST_RUNNER_DEBIAN_MIRROR
    [ "$name" = debian ] || override=HOST_RUNNER_DEBIAN_SECURITY_MIRROR
    uri=${!override:-}
    if [ -z "$uri" ]; then
        # indextargets knows only what an `apt-get update` has fetched; --print-uris also works on a host whose lists are
        # empty, as in a container. An archive's URI ends in /debian or /debian-security by convention, and the
        # convention is all there is: a mirror may label its Release file as it likes.
        # shellcheck disable=SC2016 # apt's own placeholders
        uri=$({
            apt-get indextargets --format '$(REPO_URI)' 2>/dev/null || true
            apt-get update --print-uris 2>/dev/null | sed -n "s|^'\(.*/\)dists/.*|\1|p" || true
        } | sed 's|/*$||' | awk -v name="/$name" 'substr($0, length($0) - length(name) + 1) == name && !found++')
    fi
    [ -n "$uri" ] || die "no mirror of the Debian archive '$name' found" \
        "the host's apt configuration (apt-get indextargets) names none whose address ends in /$name" \
        "set $override to the address of one"
    printf '%s\n' "${uri%/}"
}

# The awk programs below read to the end: one that quits early would end apt by SIGPIPE, and with pipefail the script.

# _apt ROOT COMMAND ARGUMENT...: an apt command that sees only ROOT.
_apt() {
    local root=$1
    shift
    APT_CONFIG=$root/etc/apt.conf LC_ALL=C "$@"
}

# apt_root_make ROOT ARCHITECTURE TYPES SUITE...: TYPES is "deb", "deb-src" or "deb deb-src". Cheap; does it anew each time.
apt_root_make() {
    local root=$1 architecture=$2 types=$3 keyring suite uri part
    shift 3
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || die "$keyring is missing" "signatures of packages can't be checked without it" \
        "apt-get install debian-archive-keyring"
    mkdir -p -- "$root"/{etc/empty.d,state/lists/partial,cache/archives/partial,log}
    root=$(cd "$root" && pwd)
    : >"$root/status"
    {
        # How the host reaches the network. The other settings stay out: its hooks (Post-Invoke) would run on the host.
        apt-config dump | grep -E '^Acquire::' |
            grep -vE '^Acquire::(IndexTargets|CompressionTypes|Languages|AllowInsecure|AllowWeak|AllowDowngrade)' || true
        # Check-Valid-Until off: a mirror that lags gives lists past their date, and what is fetched by them is checked
        # against a committed SHA-256 anyway.
        # Dir::Etc::main and parts point nowhere: APT_CONFIG is read first, the host's files would come on top. Credentials
        # (netrc) stay the host's. The sandbox user _apt can't enter a cache below a home, which is 0700.
        cat <<END
Acquire::Languages "none";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
APT::Get::AllowUnauthenticated "false";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "root";
Dir::State "$root/state";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
Dir::Log "$root/log";
Dir::Etc "$root/etc";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$root/etc/empty.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$root/etc/empty.d";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$root/etc/sources.list.d";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "$root/etc/empty.d";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
END
    } >"$root/etc/apt.conf.new"
    mv -- "$root/etc/apt.conf.new" "$root/etc/apt.conf"
    # The same sources are written again in place: another build may be reading them.
    mkdir -p -- "$root/etc/sources.list.d"
    for part in "$root/etc/sources.list.d"/*; do
        suite=${part##*/}
        case " $* " in
            *" ${suite%.sources} "*) ;;
            *) rm -f -- "$part" ;;
        esac
    done
    for suite in "$@"; do
        part=debian
        case $suite in *-security) part=debian-security ;; esac
        uri=$(_apt_mirror "$part")
        printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
            "$types" "$uri" "$suite" "$keyring" >"$root/etc/$suite.new"
        mv -- "$root/etc/$suite.new" "$root/etc/sources.list.d/$suite.sources"
    done
}

# apt_root_update ROOT: fetches the package lists. An index that can't be fetched or verified is an error, not a warning.
apt_root_update() {
    flock -- "$1/lock" env APT_CONFIG="$1/etc/apt.conf" LC_ALL=C apt-get update --error-on=any ||
        die "the package lists can't be fetched" "see apt's message above" \
            "check the host's network and its apt configuration ($1/etc holds what was used)"
}

# apt_root_candidate ROOT PACKAGE SUITE: prints the newest version of PACKAGE in SUITE.
apt_root_candidate() {
    local version newest=
    while read -r version; do
        if [ -z "$newest" ] || dpkg --compare-versions "$version" gt "$newest"; then
            newest=$version
        fi
    done < <(_apt "$1" apt-cache madison "$2" | awk -F ' *[|] *' -v suite="$3" \
        '{ split($3, where, " "); sub("/.*", "", where[2]); if (where[2] == suite && where[4] == "Packages") print $2 }')
    [ -n "$newest" ] || die "suite $3 has no package $2" "the lists in $1 don't name it" "check packages and suites for a newer name"
    printf '%s\n' "$newest"
}

# apt_root_sha256 ROOT PACKAGE VERSION: prints the SHA-256 that the signed lists give for it; status 1 when they don't know it.
apt_root_sha256() {
    _apt "$1" apt-cache show --no-all-versions "$2=$3" 2>/dev/null | awk '/^SHA256: / && !found++ { print $2 } END { exit !found }'
}

# apt_root_depends ROOT PACKAGE VERSION: prints its Depends field, one alternative group a line.
apt_root_depends() {
    _apt "$1" apt-cache show --no-all-versions "$2=$3" | sed -n 's/^\(Pre-\)\{0,1\}Depends: //p' | tr ',' '\n' | sed 's/^ *//'
}

# apt_root_download ROOT PACKAGE VERSION SHA256 FOLDER: puts PACKAGE_VERSION_ARCH.deb into FOLDER as SHA256.deb, and checks it.
# The name is the digest: what the cache holds can't be mistaken for another version or another mirror's build.
apt_root_download() {
    local root=$1 package=$2 version=$3 sha256=$4 folder=$5 scratch file actual
    [ ! -f "$folder/$sha256.deb" ] || [ "$(sha256_of "$folder/$sha256.deb")" != "$sha256" ] || return 0
    mkdir -p -- "$folder"
    scratch=$(mktemp -d -- "$folder/.download.XXXXXX")
    root=$(cd "$root" && pwd)
    if ! (cd "$scratch" && _apt "$root" apt-get download "$package=$version"); then
        rm -rf -- "$scratch"
        die "package $package $version can't be fetched" "see apt's message above" "check the network, or that the mirror still has it"
    fi
    file=$(find "$scratch" -name '*.deb')
    actual=$(sha256_of "$file")
    if [ "$actual" != "$sha256" ]; then
        rm -rf -- "$scratch"
        die "package $package $version is not the expected one" "SHA-256 $actual, expected $sha256" \
            "don't use this mirror, or update the lock when the change is known and wanted"
    fi
    mv -- "$file" "$folder/$sha256.deb"
    rm -rf -- "$scratch"
}

# apt_root_source ROOT PACKAGE VERSION FOLDER: downloads the files of a source package into FOLDER, unpacks nothing.
apt_root_source() {
    local root
    root=$(cd "$1" && pwd)
    mkdir -p -- "$4"
    (cd "$4" && _apt "$root" apt-get source --only-source --download-only "$2=$3") ||
        die "source package $2 $3 can't be fetched" "see apt's message above" "check the network, or that the mirror still has it"
}

# apt_root_source_versions ROOT PACKAGE: prints the versions of a source package that the lists know.
apt_root_source_versions() {
    _apt "$1" apt-cache showsrc --only-source "$2" | sed -n 's/^Version: //p' | sort -u
}

# fetch_cpp_httplib: puts Debian trixie's patched cpp-httplib into the cache (deps/cpp-httplib-0.18.7/httplib.h), so that
# every host builds against the same text. Prints nothing but apt's output; does nothing when it is there already.
fetch_cpp_httplib() {
    local lock=$_apt_lib/cpp-httplib.sha256 cache target stamp scratch dsc version known name
    cache=$(cache_folder)
    target=$cache/deps/cpp-httplib-0.18.7
    # Tied to the lock file: a newer revision of Debian's patches replaces the folder.
    stamp=$(sha256_of "$lock")
    [ "$(cat -- "$target/.lock-sha256" 2>/dev/null || true)" != "$stamp" ] || [ ! -f "$target/httplib.h" ] || return 0
    need_tools apt-get apt-cache dpkg dpkg-source patch flock
    dsc=$(awk '$2 ~ /\.dsc$/ { print $2 }' "$lock")
    version=${dsc#cpp-httplib_}
    version=${version%.dsc}
    apt_root_make "$cache/apt-source" "$(dpkg --print-architecture)" deb-src trixie
    apt_root_update "$cache/apt-source"
    known=$(apt_root_source_versions "$cache/apt-source" cpp-httplib | tr '\n' ' ')
    case " $known " in
        *" $version "*) ;;
        *) die "the mirror no longer has cpp-httplib $version" "it has: $known" \
            "read Debian's changes, then commit the new files' SHA-256 sums to scripts/lib/cpp-httplib.sha256" ;;
    esac
    mkdir -p -- "$cache/deps"
    scratch=$(mktemp -d -- "$cache/deps/.cpp-httplib.XXXXXX")
    apt_root_source "$cache/apt-source" cpp-httplib "$version" "$scratch"
    if ! (cd "$scratch" && sha256sum --check --strict --quiet -- "$lock"); then
        rm -rf -- "$scratch"
        die "cpp-httplib $version is not the committed one" "a file's SHA-256 differs from scripts/lib/cpp-httplib.sha256" \
            "don't use this mirror, or update the sums when the change is known and wanted"
    fi
    # --no-check: the sums above are stricter than the signature of a .dsc, whose keyring a host need not have.
    dpkg-source --no-check -x "$scratch/$dsc" "$scratch/tree"
    name=$(sed -n 's/^#define CPPHTTPLIB_VERSION "\(.*\)"/\1/p' "$scratch/tree/httplib.h")
    [ "$name" = 0.18.7 ] || die "httplib.h of $dsc is version $name, not 0.18.7" "" "correct scripts/lib/cpp-httplib.sha256"
    printf '%s\n' "$stamp" >"$scratch/tree/.lock-sha256"
    rm -rf -- "$target"
    # Another setup at the same time may have been first: then its folder stays, the text is the same.
    mv -T -- "$scratch/tree" "$target" 2>/dev/null || [ -f "$target/httplib.h" ] || die "can't make $target" "" "check its folder"
    rm -rf -- "$scratch"
}
