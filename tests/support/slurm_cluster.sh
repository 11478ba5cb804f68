#!/bin/bash
# A real Slurm on this one machine, as root, without systemd or cgroups: munged, slurmctld and several slurmd
# ("nodes"), each with its own name and port. Debian 12: slurm 22.05.8.
#   slurm_cluster.sh start [NODES] [CPUS_PER_NODE] [GPUS_PER_NODE] | stop | kill-node NAME | start-node NAME
# State lies in the folder $SLURM_LOCAL. export SLURM_CONF=$SLURM_LOCAL/slurm.conf to use it.
set -euo pipefail
root=${SLURM_LOCAL:?an empty folder for its state}
export SLURM_CONF=$root/slurm.conf

configure() {
    local nodes=$1 cpus=$2 gpus=$3 host memory
    host=$(hostname -s)
    memory=$(( $(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 / nodes ))
    mkdir -p "$root"/{state,log} /run/munge
    cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is requeued waits until its credential has expired, two minutes if nothing is said.
AuthInfo=cred_expire=8
SlurmctldPort=${SLURM_PORT:-16817}
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool.%n
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd.%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,bf_interval=5,requeue_setup_env_fail
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$root/log/jobcomp.txt
ReturnToService=2
SlurmdTimeout=8
InactiveLimit=0
KillWait=5
MinJobAge=600
JobRequeue=1
SlurmdParameters=config_overrides
GresTypes=gpu
CONF
    : >"$root/gres.conf"
    local gres=
    for n in $(seq 1 "$nodes"); do
        mkdir -p "$root/spool.n$n"
        if [ "$gpus" -gt 0 ]; then
            gres="Gres=gpu:$gpus"
            for g in $(seq 0 $((gpus - 1))); do
                touch "$root/gpu$g"   # a file stands for the device: nothing here opens it
                echo "NodeName=n$n Name=gpu File=$root/gpu$g" >>"$root/gres.conf"
            done
        fi
        echo "NodeName=n$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((16900 + n)) CPUs=$cpus RealMemory=$memory $gres State=UNKNOWN" >>"$SLURM_CONF"
    done
    echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO" >>"$SLURM_CONF"
}

accounting_up() {
    # submitit asks sacct how a job ended: without accounting it never learns that one was killed, and waits for ever.
    mkdir -p "$root/mysql" /run/mysqld
    [ -d "$root/mysql/mysql" ] || mariadb-install-db --user=root --datadir="$root/mysql" --skip-test-db >/dev/null 2>&1
    mariadbd --user=root --datadir="$root/mysql" --socket="$root/mysql.sock" --port=16820 --bind-address=127.0.0.1 \
        --pid-file="$root/mysql.pid" --innodb-buffer-pool-size=64M --skip-name-resolve >"$root/log/mysql.log" 2>&1 &
    for _ in $(seq 60); do mariadb -S "$root/mysql.sock" -e 'select 1' >/dev/null 2>&1 && break; sleep 0.25; done
    mariadb -S "$root/mysql.sock" -e "create database if not exists slurm_acct_db;
        create user if not exists slurm@localhost identified by 'local'; create user if not exists 'slurm'@'127.0.0.1' identified by 'local';
        grant all on slurm_acct_db.* to slurm@localhost; grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';"
    cat >"$root/slurmdbd.conf" <<CONF
AuthType=auth/munge
DbdHost=$(hostname -s)
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
PidFile=$root/slurmdbd.pid
LogFile=$root/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16820
StorageUser=slurm
StoragePass=local
StorageLoc=slurm_acct_db
CONF
    chmod 600 "$root/slurmdbd.conf"    # slurmdbd refuses a file that others can read
    slurmdbd
    for _ in $(seq 60); do sacctmgr -n show cluster >/dev/null 2>&1 && break; sleep 0.25; done
    sacctmgr -i add cluster local >/dev/null 2>&1 || true
}

munge_up() {
    munge -n >/dev/null 2>&1 && return
    [ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
    # munged refuses folders that others can write; as root without --force it refuses to run too.
    mkdir -p /run/munge /var/log/munge /var/lib/munge
    chown -R root:root /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 0700 /etc/munge /var/log/munge /var/lib/munge; chmod 0755 /run/munge; chmod 0400 /etc/munge/munge.key
    munged --force --pid-file "$root/munged.pid"
}

start() {
    local nodes=${1:-2} cpus=${2:-2} gpus=${3:-0}
    configure "$nodes" "$cpus" "$gpus"; munge_up; accounting_up
    slurmctld -c
    for n in $(seq 1 "$nodes"); do slurmd -c -N "n$n"; done
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -o %T 2>/dev/null | grep -c '^idle$')" = "$nodes" ] && break
        sleep 0.5
    done
    sinfo -N -l
}

stop() {
    scancel -u root 2>/dev/null || true
    # munged is among them where it was started here.
    for file in "$root"/slurmd.*.pid "$root"/slurmctld.pid "$root"/slurmdbd.pid "$root"/mysql.pid "$root"/munged.pid; do
        [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
    done
}

kill_node() {
    # A machine that is lost takes the jobs on it along, with the processes that stand over them.
    local entry process
    kill -9 "$(cat "$root/slurmd.$1.pid")"
    for entry in /proc/[0-9]*/environ; do
        process=${entry#/proc/}; process=${process%/environ}
        if tr '\0' '\n' <"$entry" 2>/dev/null | grep -qx "SLURMD_NODENAME=$1"; then
            local above; above=$(awk '{print $4}' "/proc/$process/stat" 2>/dev/null || echo 0)
            if grep -qs slurmstepd "/proc/$above/cmdline"; then kill -9 "$above" 2>/dev/null || true; fi
            kill -9 "$process" 2>/dev/null || true
        fi
    done
}

case ${1:-} in
    start) shift; start "$@" ;;
    stop) stop ;;
    kill-node) kill_node "$2" ;;
    start-node) slurmd -N "$2" ;;
    *) sed -n 2,6p "$0"; exit 2 ;;
esac
