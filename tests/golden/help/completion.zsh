#compdef host_runner

_host_runner_ids() {
    compadd -- $(host_runner list --all --output table 2>/dev/null | awk 'NR > 1 && $1 ~ /^[0-9a-f]+$/ { print $1 }')
}

_host_runner() {
    local context state line verb
    typeset -A opt_args
    local -a words_here
    _arguments -C '(- *)'{-h,--help}'[Show help]' '(- *)--version[Show versions]' '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' '1:verb:->verb' '*::argument:->rest'
    case $state in
        verb)
            words_here=( 'run:Start a VM and stay until it ends' 'list:Show the VMs' 'stop:Stop VMs\: in order, then firmly' 'logs:Show what a VM printed' 'console:Talk to the serial line' 'exec:Run a command in the guest' 'invoke:Call a function of a VM' 'run-wasm:Run one WebAssembly module in a VM of its own' 'inspect:Show everything about an instance' 'stats:Show memory, CPU time and I/O of the VMs' 'doctor:Check whether this host has what a VM needs' 'wait:Wait until a VM is ready or has ended' 'rm:Remove instances that do not run' 'prune:Remove the records of temporary instances that have ended' 'image:Check an image directory completely' 'gpu:Show the GPUs and NVSwitches of this machine, and who holds them' 'compose:Explain what a compose file gives a VM of our own image' 'config:Show every setting and where it comes from' 'completion:Print a completion script for a shell' )
            _describe verb words_here ;;
        rest)
            verb=$words[1]
            case $verb in
            run)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--image-path[Image directory, with its metadata.json (required)]:DIR:_files -/' \
                '-i[Image directory, with its metadata.json (required)]:DIR:_files -/' \
                '--compose-path[Compose file with the services; without one in the current folder the VM starts none]:FILE:_files' \
                '-c[Compose file with the services; without one in the current folder the VM starts none]:FILE:_files' \
                '--env-file[Environment for every service, as NAME=value lines. Not secret\: it becomes a part of the measured app-compose.json]:FILE:_files' \
                '--cpus[Virtual CPUs]:N: ' \
                '-u[Virtual CPUs]:N: ' \
                '--memory[Memory, with K, M, G or T; a bare number is MiB]:SIZE: ' \
                '-m[Memory, with K, M, G or T; a bare number is MiB]:SIZE: ' \
                '--disk[Size of the data disk, a sparse file]:SIZE: ' \
                '-d[Size of the data disk, a sparse file]:SIZE: ' \
                '--name[A name makes the instance permanent\: its disk and identity stay for the next run with that name]:NAME: ' \
                '--append[Added to the kernel command line. It is measured]:TEXT: ' \
                '--firmware[With --tee none\: boot through the image'\''s firmware in place of SeaBIOS]' \
                '--tee[Protection of the VM from its host. '\''none'\'' protects nothing and is never chosen by itself]:tee:(tdx none)' \
                '--qgs[Quote generation service, as vsock\:CID\:PORT or unix\:PATH; without it vsock\:2\:4050 where the image takes quotes through QEMU]:ADDRESS: ' \
                '--local-key-provider[Let this runner be the VM'\''s key provider; the same as --key-provider local]' \
                '--key-provider[Who gives the VM its keys\: local, none, relay=HOST\:PORT or kms=URL\[,URL\]]:WHERE: ' \
                '*--ports[Forwarded ports, as tcp|udp\:HOST_IP\:HOST_PORT\:GUEST_PORT. An empty HOST_IP is 127.0.0.1, HOST_PORT 0 a free port, which is printed]:LIST: ' \
                '*-p[Forwarded ports, as tcp|udp\:HOST_IP\:HOST_PORT\:GUEST_PORT. An empty HOST_IP is 127.0.0.1, HOST_PORT 0 a free port, which is printed]:LIST: ' \
                '--net[Network card\: user (behind the host, with port forwarding), none or bridge=NAME; user=slirp, user=passt and user=qemu choose who makes the user network]:MODE: ' \
                '--egress[Whether the guest may open connections to the outside. Without it\: as the compose file says, else off; on for dstack'\''s images, which pull containers]:egress:(on off)' \
                '*--host-service[Services on the host'\''s loopback that the guest may reach, as tcp\:PORT; it finds them at 10.0.2.2\:PORT]:LIST: ' \
                '--accel[Accelerator. '\''auto'\'' takes KVM where the processor has hardware virtualisation and /dev/kvm opens, else software emulation, and says which]:accel:(auto kvm tcg)' \
                '--qemu[The QEMU program, a path or a name in PATH]:PATH:_files' \
                '--user[Account that QEMU runs as; only root can choose. Without it root'\''s QEMUs run as host-runner where that account exists, else as root]:NAME: ' \
                '--backend[Who starts QEMU\: qemu (this program), or libvirt, at its URI where one is given with libvirt=URI; else at qemu\:///system for root and qemu\:///session for others]:WHO: ' \
                '*--gpus[NVIDIA GPUs and NVSwitches for the VM, by PCI address with or without the domain; or all of this machine]:LIST: ' \
                '*-g[NVIDIA GPUs and NVSwitches for the VM, by PCI address with or without the domain; or all of this machine]:LIST: ' \
                '--pin-numa[Bind the VM'\''s processors and memory to the NUMA nodes of its GPUs; without any to the node with the most free memory]' \
                '--numa-node[With --pin-numa or --hugepage\: take this node of the host]:N: ' \
                '--hugepage[Take the memory from the pages of 1 GiB or 2 MiB that are set aside]' \
                '--hugepage-size[Size of these pages; '\''auto'\'' takes 1 GiB where there are enough, else 2 MiB, and says which]:hugepage-size:(auto 2M 1G)' \
                '--detach[Leave the VM running in the background; print its id and ports]' \
                '--wait[What --detach waits for\: the guest'\''s word that it is ready, or QEMU'\''s start]:wait:(ready started)' \
                '--restart[Start the VM again after a failure\: no, on-failure or on-failure\:N with at most N restarts in a row (5)]:RULE: ' \
                '--stop-timeout[Kill QEMU at the latest this long after a stop began; without it the time grows with the VM'\''s memory]:TIME: ' \
                '--dry-run[Print QEMU'\''s command line so that a shell runs it as it is; take and leave nothing]' \
                '--format[With --dry-run\: QEMU'\''s command line, or the same VM as libvirt'\''s domain XML; without it what the backend would be given]:format:(argv libvirt-xml)' \
                '--output[How progress is printed; json gives one object per line]:output:(text json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
            list)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--all[Also those that do not run]' \
                '-a[Also those that do not run]' \
                '--output[Form of the output]:output:(table json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
            stop)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--id[The instance\: its id, the beginning of its id, or its name]:ID:_host_runner_ids' \
                '-i[The instance\: its id, the beginning of its id, or its name]:ID:_host_runner_ids' \
                '--all[Stop every VM that runs, side by side]' \
                '-a[Stop every VM that runs, side by side]' \
                '--timeout[Kill QEMU at the latest after this time; without it the time grows with the VM'\''s memory]:TIME: ' \
                '--force[Kill QEMU at once; data in the guest may be lost]' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' ;;
            logs)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--follow[Go on with what comes, until the VM ends]' \
                '-f[Go on with what comes, until the VM ends]' \
                '--tail[Begin with the last N lines]:N: ' \
                '--service[What this service of the running VM printed, with all its replicas; asked from the guest]:NAME: ' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' \
                '2:WHAT:(serial qemu events services)' ;;
            console)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' ;;
            exec)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' \
                '*:CMD:_files' ;;
            invoke)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--data[What the function reads on its stdin\: this text, a file, or what comes on ours; nothing without it]:TEXT|@FILE|@-: ' \
                '*--env[A variable for this call; wins over the service'\''s own]:NAME=VALUE: ' \
                '*-e[A variable for this call; wins over the service'\''s own]:NAME=VALUE: ' \
                '--timeout[End the call after this time, if the function'\''s own limit does not end it before]:TIME: ' \
                '--max-output[Keep so much of stdout and of stderr, if the function'\''s own limit is not less]:SIZE: ' \
                '--output[Pass its output on, or show all about the call when it has ended]:output:(text json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' \
                '2:FUNCTION:_files' \
                '*:ARG:_files' ;;
            run-wasm)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--image-path[Image directory, with its metadata.json (required)]:DIR:_files -/' \
                '-i[Image directory, with its metadata.json (required)]:DIR:_files -/' \
                '--cpus[Virtual CPUs]:N: ' \
                '-u[Virtual CPUs]:N: ' \
                '--memory[Memory, with K, M, G or T; a bare number is MiB]:SIZE: ' \
                '-m[Memory, with K, M, G or T; a bare number is MiB]:SIZE: ' \
                '--disk[Size of the data disk, a sparse file]:SIZE: ' \
                '-d[Size of the data disk, a sparse file]:SIZE: ' \
                '--tee[Protection of the VM from its host. '\''none'\'' protects nothing and is never chosen by itself]:tee:(tdx none)' \
                '--qgs[Quote generation service, as vsock\:CID\:PORT or unix\:PATH; without it vsock\:2\:4050 where the image takes quotes through QEMU]:ADDRESS: ' \
                '--accel[Accelerator. '\''auto'\'' takes KVM where the processor has hardware virtualisation and /dev/kvm opens, else software emulation, and says which]:accel:(auto kvm tcg)' \
                '--qemu[The QEMU program, a path or a name in PATH]:PATH:_files' \
                '--user[Account that QEMU runs as; only root can choose. Without it root'\''s QEMUs run as host-runner where that account exists, else as root]:NAME: ' \
                '*--env[A variable of the module]:NAME=VALUE: ' \
                '*-e[A variable of the module]:NAME=VALUE: ' \
                '--module-memory[Linear memory of the module, at most]:SIZE: ' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:MODULE:_files' \
                '*:ARG:_files' ;;
            inspect)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--output[Form of the output]:output:(text json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' ;;
            stats)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--output[Form of the output]:output:(table json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' ;;
            doctor)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--image-path[Image directory, with its metadata.json (required)]:DIR:_files -/' \
                '-i[Image directory, with its metadata.json (required)]:DIR:_files -/' \
                '--compose-path[Compose file with the services; without one in the current folder the VM starts none]:FILE:_files' \
                '-c[Compose file with the services; without one in the current folder the VM starts none]:FILE:_files' \
                '--env-file[Environment for every service, as NAME=value lines. Not secret\: it becomes a part of the measured app-compose.json]:FILE:_files' \
                '--cpus[Virtual CPUs]:N: ' \
                '-u[Virtual CPUs]:N: ' \
                '--memory[Memory, with K, M, G or T; a bare number is MiB]:SIZE: ' \
                '-m[Memory, with K, M, G or T; a bare number is MiB]:SIZE: ' \
                '--disk[Size of the data disk, a sparse file]:SIZE: ' \
                '-d[Size of the data disk, a sparse file]:SIZE: ' \
                '--append[Added to the kernel command line. It is measured]:TEXT: ' \
                '--firmware[With --tee none\: boot through the image'\''s firmware in place of SeaBIOS]' \
                '--tee[Protection of the VM from its host. '\''none'\'' protects nothing and is never chosen by itself]:tee:(tdx none)' \
                '--qgs[Quote generation service, as vsock\:CID\:PORT or unix\:PATH; without it vsock\:2\:4050 where the image takes quotes through QEMU]:ADDRESS: ' \
                '--local-key-provider[Let this runner be the VM'\''s key provider; the same as --key-provider local]' \
                '--key-provider[Who gives the VM its keys\: local, none, relay=HOST\:PORT or kms=URL\[,URL\]]:WHERE: ' \
                '*--ports[Forwarded ports, as tcp|udp\:HOST_IP\:HOST_PORT\:GUEST_PORT. An empty HOST_IP is 127.0.0.1, HOST_PORT 0 a free port, which is printed]:LIST: ' \
                '*-p[Forwarded ports, as tcp|udp\:HOST_IP\:HOST_PORT\:GUEST_PORT. An empty HOST_IP is 127.0.0.1, HOST_PORT 0 a free port, which is printed]:LIST: ' \
                '--net[Network card\: user (behind the host, with port forwarding), none or bridge=NAME; user=slirp, user=passt and user=qemu choose who makes the user network]:MODE: ' \
                '--egress[Whether the guest may open connections to the outside. Without it\: as the compose file says, else off; on for dstack'\''s images, which pull containers]:egress:(on off)' \
                '*--host-service[Services on the host'\''s loopback that the guest may reach, as tcp\:PORT; it finds them at 10.0.2.2\:PORT]:LIST: ' \
                '--accel[Accelerator. '\''auto'\'' takes KVM where the processor has hardware virtualisation and /dev/kvm opens, else software emulation, and says which]:accel:(auto kvm tcg)' \
                '--qemu[The QEMU program, a path or a name in PATH]:PATH:_files' \
                '--user[Account that QEMU runs as; only root can choose. Without it root'\''s QEMUs run as host-runner where that account exists, else as root]:NAME: ' \
                '--backend[Who starts QEMU\: qemu (this program), or libvirt, at its URI where one is given with libvirt=URI; else at qemu\:///system for root and qemu\:///session for others]:WHO: ' \
                '*--gpus[NVIDIA GPUs and NVSwitches for the VM, by PCI address with or without the domain; or all of this machine]:LIST: ' \
                '*-g[NVIDIA GPUs and NVSwitches for the VM, by PCI address with or without the domain; or all of this machine]:LIST: ' \
                '--pin-numa[Bind the VM'\''s processors and memory to the NUMA nodes of its GPUs; without any to the node with the most free memory]' \
                '--numa-node[With --pin-numa or --hugepage\: take this node of the host]:N: ' \
                '--hugepage[Take the memory from the pages of 1 GiB or 2 MiB that are set aside]' \
                '--hugepage-size[Size of these pages; '\''auto'\'' takes 1 GiB where there are enough, else 2 MiB, and says which]:hugepage-size:(auto 2M 1G)' \
                '--output[Form of the output]:output:(table json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
            wait)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--for[What is waited for]:for:(ready exit)' \
                '--timeout[Give up after this time (exit code 8); without it wait for ever]:TIME: ' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:ID:_host_runner_ids' ;;
            rm)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '*:ID:_host_runner_ids' ;;
            prune)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--keep[Keep the newest N]:N: ' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
            image)
                if (( CURRENT == 2 )); then compadd verify inspect import; return; fi
                shift words; (( CURRENT-- ))
                case $words[1] in
                verify) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--output[Form of the output]:output:(table json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:DIR:_files -/' ;;
                inspect) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--output[Form of the output]:output:(text json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:DIR:_files -/' ;;
                import) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--sha256[SHA-256 that the archive must have (required)]:HEX: ' \
                '--into[Folder that gets the image directory]:DIR:_files -/' \
                '--output[Form of the output]:output:(text json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:SOURCE:_files' ;;
                esac ;;
            gpu)
                if (( CURRENT == 2 )); then compadd list reclaim; return; fi
                shift words; (( CURRENT-- ))
                case $words[1] in
                list) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--output[Form of the output]:output:(table json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
                reclaim) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
                esac ;;
            compose)
                if (( CURRENT == 2 )); then compadd check; return; fi
                shift words; (( CURRENT-- ))
                case $words[1] in
                check) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--env-file[As for run\: its variables become part of app-compose.json]:FILE:_files' \
                '--output[Form of the output]:output:(text json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:FILE:_files' ;;
                esac ;;
            config)
                if (( CURRENT == 2 )); then compadd show; return; fi
                shift words; (( CURRENT-- ))
                case $words[1] in
                show) _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--output[Form of the output]:output:(table json)' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' ;;
                esac ;;
            completion)
                _arguments -s '(- *)'{-h,--help}'[Show help]' \
                '--log-level[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '-l[What is logged to stderr]:log-level:(trace debug info warn error off)' \
                '1:SHELL:(bash zsh fish)' ;;
            esac ;;
    esac
}

if [[ $funcstack[1] == _host_runner ]]; then _host_runner "$@"; else compdef _host_runner host_runner; fi
