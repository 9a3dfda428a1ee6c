# bash completion for host_runner

_host_runner_ids() {
    host_runner list --all --output table 2>/dev/null | awk 'NR > 1 && $1 ~ /^[0-9a-f]+$/ { print $1 }'
}

_host_runner() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            -l|--log-level) ((i++)) ;;
            -*) ;;
            image) verb="$word ${COMP_WORDS[i+1]}"
                ((i + 1 < COMP_CWORD)) || verb=$word
                break ;;
            gpu) verb="$word ${COMP_WORDS[i+1]}"
                ((i + 1 < COMP_CWORD)) || verb=$word
                break ;;
            compose) verb="$word ${COMP_WORDS[i+1]}"
                ((i + 1 < COMP_CWORD)) || verb=$word
                break ;;
            config) verb="$word ${COMP_WORDS[i+1]}"
                ((i + 1 < COMP_CWORD)) || verb=$word
                break ;;
            *) verb=$word; break ;;
        esac
    done
    case "$verb $prev" in
        *' --log-level'|*' -l') COMPREPLY=($(compgen -W 'trace debug info warn error off' -- "$cur")); return ;;
        'run --image-path'|'run -i'|'run-wasm --image-path'|'run-wasm -i'|'doctor --image-path'|'doctor -i') COMPREPLY=($(compgen -d -- "$cur")); return ;;
        'run --compose-path'|'run -c'|'doctor --compose-path'|'doctor -c') COMPREPLY=($(compgen -f -- "$cur")); return ;;
        'run --env-file'|'doctor --env-file') COMPREPLY=($(compgen -f -- "$cur")); return ;;
        'run --cpus'|'run -u'|'run-wasm --cpus'|'run-wasm -u'|'doctor --cpus'|'doctor -u') COMPREPLY=(); return ;;
        'run --memory'|'run -m'|'run-wasm --memory'|'run-wasm -m'|'doctor --memory'|'doctor -m') COMPREPLY=(); return ;;
        'run --disk'|'run -d'|'run-wasm --disk'|'run-wasm -d'|'doctor --disk'|'doctor -d') COMPREPLY=(); return ;;
        'run --name') COMPREPLY=(); return ;;
        'run --append'|'doctor --append') COMPREPLY=(); return ;;
        'run --tee'|'run-wasm --tee'|'doctor --tee') COMPREPLY=($(compgen -W 'tdx none' -- "$cur")); return ;;
        'run --qgs'|'run-wasm --qgs'|'doctor --qgs') COMPREPLY=(); return ;;
        'run --key-provider'|'doctor --key-provider') COMPREPLY=(); return ;;
        'run --ports'|'run -p'|'doctor --ports'|'doctor -p') COMPREPLY=(); return ;;
        'run --net'|'doctor --net') COMPREPLY=(); return ;;
        'run --egress'|'doctor --egress') COMPREPLY=($(compgen -W 'on off' -- "$cur")); return ;;
        'run --host-service'|'doctor --host-service') COMPREPLY=(); return ;;
        'run --accel'|'run-wasm --accel'|'doctor --accel') COMPREPLY=($(compgen -W 'auto kvm tcg' -- "$cur")); return ;;
        'run --qemu'|'run-wasm --qemu'|'doctor --qemu') COMPREPLY=($(compgen -f -- "$cur")); return ;;
        'run --user'|'run-wasm --user'|'doctor --user') COMPREPLY=(); return ;;
        'run --backend'|'doctor --backend') COMPREPLY=(); return ;;
        'run --gpus'|'run -g'|'doctor --gpus'|'doctor -g') COMPREPLY=(); return ;;
        'run --numa-node'|'doctor --numa-node') COMPREPLY=(); return ;;
        'run --hugepage-size'|'doctor --hugepage-size') COMPREPLY=($(compgen -W 'auto 2M 1G' -- "$cur")); return ;;
        'run --wait') COMPREPLY=($(compgen -W 'ready started' -- "$cur")); return ;;
        'run --restart') COMPREPLY=(); return ;;
        'run --stop-timeout') COMPREPLY=(); return ;;
        'run --format') COMPREPLY=($(compgen -W 'argv libvirt-xml' -- "$cur")); return ;;
        'run --output') COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        'list --output') COMPREPLY=($(compgen -W 'table json' -- "$cur")); return ;;
        'stop --id'|'stop -i') COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); return ;;
        'stop --timeout') COMPREPLY=(); return ;;
        'logs --tail') COMPREPLY=(); return ;;
        'logs --service') COMPREPLY=(); return ;;
        'invoke --data') COMPREPLY=(); return ;;
        'invoke --env'|'invoke -e') COMPREPLY=(); return ;;
        'invoke --timeout') COMPREPLY=(); return ;;
        'invoke --max-output') COMPREPLY=(); return ;;
        'invoke --output') COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        'run-wasm --env'|'run-wasm -e') COMPREPLY=(); return ;;
        'run-wasm --module-memory') COMPREPLY=(); return ;;
        'inspect --output') COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        'stats --output') COMPREPLY=($(compgen -W 'table json' -- "$cur")); return ;;
        'doctor --output') COMPREPLY=($(compgen -W 'table json' -- "$cur")); return ;;
        'wait --for') COMPREPLY=($(compgen -W 'ready exit' -- "$cur")); return ;;
        'wait --timeout') COMPREPLY=(); return ;;
        'prune --keep') COMPREPLY=(); return ;;
        'compose check --env-file') COMPREPLY=($(compgen -f -- "$cur")); return ;;
        'compose check --output') COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        'image verify --output') COMPREPLY=($(compgen -W 'table json' -- "$cur")); return ;;
        'image inspect --output') COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        'image import --sha256') COMPREPLY=(); return ;;
        'image import --into') COMPREPLY=($(compgen -d -- "$cur")); return ;;
        'image import --output') COMPREPLY=($(compgen -W 'text json' -- "$cur")); return ;;
        'gpu list --output') COMPREPLY=($(compgen -W 'table json' -- "$cur")); return ;;
        'config show --output') COMPREPLY=($(compgen -W 'table json' -- "$cur")); return ;;
    esac
    case $verb in
        '') COMPREPLY=($(compgen -W 'run list stop logs console exec invoke run-wasm inspect stats doctor wait rm prune image gpu compose config completion --help --version --log-level' -- "$cur")) ;;
        image) COMPREPLY=($(compgen -W 'verify inspect import' -- "$cur")) ;;
        gpu) COMPREPLY=($(compgen -W 'list reclaim' -- "$cur")) ;;
        compose) COMPREPLY=($(compgen -W 'check' -- "$cur")) ;;
        config) COMPREPLY=($(compgen -W 'show' -- "$cur")) ;;
        'run')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --image-path --compose-path --env-file --cpus --memory --disk --name --append --firmware --tee --qgs --local-key-provider --key-provider --ports --net --egress --host-service --accel --qemu --user --backend --gpus --pin-numa --numa-node --hugepage --hugepage-size --detach --wait --restart --stop-timeout --dry-run --format --output --log-level' -- "$cur")); fi ;;
        'list')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --all --output --log-level' -- "$cur")); fi ;;
        'stop')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --id --all --timeout --force --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'logs')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --follow --tail --service --log-level' -- "$cur"))
            elif [[ $prev != "${verb##* }" ]]; then COMPREPLY=($(compgen -W 'serial qemu events services' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'console')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'exec')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --log-level' -- "$cur"))
            elif [[ $prev != "${verb##* }" ]]; then COMPREPLY=($(compgen -f -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'invoke')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --data --env --timeout --max-output --output --log-level' -- "$cur"))
            elif [[ $prev != "${verb##* }" ]]; then COMPREPLY=($(compgen -f -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'run-wasm')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --image-path --cpus --memory --disk --tee --qgs --accel --qemu --user --env --module-memory --log-level' -- "$cur"))
            elif [[ $prev != "${verb##* }" ]]; then COMPREPLY=($(compgen -f -- "$cur"))
            else COMPREPLY=($(compgen -f -- "$cur")); fi ;;
        'inspect')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --output --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'stats')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --output --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'doctor')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --image-path --compose-path --env-file --cpus --memory --disk --append --firmware --tee --qgs --local-key-provider --key-provider --ports --net --egress --host-service --accel --qemu --user --backend --gpus --pin-numa --numa-node --hugepage --hugepage-size --output --log-level' -- "$cur")); fi ;;
        'wait')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --for --timeout --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'rm')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W "$(_host_runner_ids)" -- "$cur")); fi ;;
        'prune')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --keep --log-level' -- "$cur")); fi ;;
        'image verify')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --output --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -d -- "$cur")); fi ;;
        'image inspect')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --output --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -d -- "$cur")); fi ;;
        'image import')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --sha256 --into --output --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -f -- "$cur")); fi ;;
        'gpu list')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --output --log-level' -- "$cur")); fi ;;
        'gpu reclaim')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --log-level' -- "$cur")); fi ;;
        'compose check')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --env-file --output --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -f -- "$cur")); fi ;;
        'config show')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --output --log-level' -- "$cur")); fi ;;
        'completion')
            if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '--help --log-level' -- "$cur"))
            else COMPREPLY=($(compgen -W 'bash zsh fish' -- "$cur")); fi ;;
    esac
}
complete -o filenames -F _host_runner host_runner
