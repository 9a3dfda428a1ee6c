# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` places beside the programs, and the Debian package: cmake --build build/release && cpack --config build/release/CPackConfig.cmake

foreach(shell bash zsh fish)
    add_custom_command(OUTPUT "${CMAKE_BINARY_DIR}/completion/${shell}"
        COMMAND ${CMAKE_COMMAND} -E make_directory "${CMAKE_BINARY_DIR}/completion"
        COMMAND host_runner completion ${shell} > "${CMAKE_BINARY_DIR}/completion/${shell}"
        DEPENDS host_runner VERBATIM)
    list(APPEND completion_files "${CMAKE_BINARY_DIR}/completion/${shell}")
endforeach()
add_custom_target(completions ALL DEPENDS ${completion_files})
install(FILES "${CMAKE_BINARY_DIR}/completion/bash" DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions"
        RENAME host_runner)
install(FILES "${CMAKE_BINARY_DIR}/completion/zsh" DESTINATION "${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions"
        RENAME _host_runner)
install(FILES "${CMAKE_BINARY_DIR}/completion/fish" DESTINATION "${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d"
        RENAME host_runner.fish)

install(FILES "${PROJECT_SOURCE_DIR}/configs/systemd/host_runner@.service" DESTINATION lib/systemd/system)
install(FILES "${PROJECT_SOURCE_DIR}/configs/systemd/host-runner.sysusers" DESTINATION lib/sysusers.d RENAME host-runner.conf)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME host-runner)
set(CPACK_PACKAGE_VENDOR host_runner)
set(CPACK_PACKAGE_CONTACT "The host_runner authors <host-runner@localhost>")
set(CPACK_PACKAGE_DIRECTORY "${CMAKE_BINARY_DIR}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers, qemu-system-x86, qemu-utils, mtools, cryptsetup-bin")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "passt, libvirt-daemon-system")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/configs/package/postinst"
    "${PROJECT_SOURCE_DIR}/configs/package/prerm" "${PROJECT_SOURCE_DIR}/configs/package/postrm")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION TRUE)
include(CPack)
