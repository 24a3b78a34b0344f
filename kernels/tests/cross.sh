#!/bin/sh
# cross.sh BUILD JOBS: the C tests on CPUs that this machine is not, under qemu's user emulation.
#
# aarch64 without sdot, with it, with smmla; armv7; riscv64 without and with vectors of 128 and 256 bits; x86-64 of 2003; AVX2
# where this CPU lacks it; and AVX-VNNI, which qemu does not have, with another form of its one instruction.  Nothing may meet an
# instruction that its CPU lacks, and every instruction set gives the bytes of scalar.c.
#
# Root on a Debian gets the compilers and emulators (RISC-V's vectors: clang from pip's ziglang, in BUILD/zig); elsewhere what is
# missing is named and skipped.  Any failure ends the run.
set -eu
build=$1
jobs=$2
here=$(cd "$(dirname "$0")/.." && pwd)
programs=$(cd "$here/tests" && ls test_*.c | sed 's/\.c$//')

emulator() { command -v "qemu-$1-static" || command -v "qemu-$1"; }
compiles() { command -v "$1" >/dev/null && echo 'int main(void){return 0;}' | "$1" -static -xc -o /dev/null - 2>/dev/null; }
# get PACKAGE..: where we may
get() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >/dev/null 2>&1 || true
}
# ready WHAT COMPILER EMULATOR PACKAGE..: 0 when both are here; else says why not
ready() {
  what=$1 cc=$2 arch=$3
  shift 3
  compiles "$cc" && emulator "$arch" >/dev/null || get "$@" qemu-user-static
  compiles "$cc" || { echo "skipped: $what ($cc with a static libc is not here: $*)"; return 1; }
  emulator "$arch" >/dev/null || { echo "skipped: $what (no qemu-$arch: qemu-user-static)"; return 1; }
}
# make_tests FOLDER CMAKE-ARGUMENT..
make_tests() {
  folder=$build/$1
  shift
  cmake -S "$here" -B "$folder" "$@" >/dev/null
  # shellcheck disable=SC2086
  cmake --build "$folder" -j "$jobs" --target $programs >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
}
cross() { # FOLDER PROCESSOR COMPILER CMAKE-ARGUMENT..
  folder=$1 processor=$2 cc=$3
  shift 3
  make_tests "$folder" -DCMAKE_SYSTEM_NAME=Linux "-DCMAKE_SYSTEM_PROCESSOR=$processor" "-DCMAKE_C_COMPILER=$cc" \
    -DCMAKE_EXE_LINKER_FLAGS=-static "$@"
}
# run TITLE FOLDER COMMAND..: every program, the long ones in their quick form, JOBS at a time
run() {
  title=$1 folder=$build/$2
  shift 2
  echo "$title:"
  # shellcheck disable=SC2086
  printf '%s\n' $programs | TITLE=$title FOLDER=$folder COMMAND="$*" xargs -P "$jobs" -n 1 sh -c '
    quick=quick out=$FOLDER/$1.out
    case $1 in test_control) quick=;; esac # its argument is a folder
    $COMMAND "$FOLDER/$1" $quick >"$out" 2>&1 || { tail -20 "$out"; echo "$1 failed on $TITLE"; exit 255; }
    counts=$(sed -n "s/^\([a-z0-9]*\): [0-9]* checks\$/\1/p" "$out" | tr "\n" " ")
    echo "  $1: $(grep -E "^[0-9]+ passed" "$out"), $counts"' sh
}
# has TITLE FOLDER ISA COMMAND..: the instruction set that a CPU must have chosen
chosen() {
  title=$1 folder=$build/$2 want=$3
  shift 3
  got=$("$@" "$folder/test_isa" list | head -1)
  [ "$got" = "$want" ] || { echo "$title chose $got, not $want"; exit 1; }
}

if ready "aarch64" aarch64-linux-gnu-gcc aarch64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross; then
  cross aarch64 aarch64 aarch64-linux-gnu-gcc -DFRUGAL_WERROR=ON
  for cpu in cortex-a53:neon cortex-a76:dotprod max:i8mm; do
    chosen "aarch64, $cpu" aarch64 "${cpu#*:}" "$(emulator aarch64)" -cpu "${cpu%:*}"
    run "aarch64, $cpu" aarch64 "$(emulator aarch64)" -cpu "${cpu%:*}"
  done
fi

# The rest takes a quarter of an hour on two CPUs; what is never left out is that vectors of RISC-V give scalar's bytes.
all=false widths=128
if [ "${CROSS:-}" = all ]; then all=true widths="128 256"; fi

if $all; then
  # NEON of armv7 flushes subnormals to zero and has no fused multiply-add before VFPv4: scalar it is, with either of its units.
  if ready "armv7" arm-linux-gnueabihf-gcc arm gcc-arm-linux-gnueabihf libc6-dev-armhf-cross; then
    cross armv7 arm arm-linux-gnueabihf-gcc # tests convert from 64 to 32 bits without a word
    for cpu in cortex-a9 cortex-a7; do
      run "armv7, $cpu" armv7 "$(emulator arm)" -cpu $cpu
    done
  fi

  if ready "riscv64 without vectors" riscv64-linux-gnu-gcc riscv64 gcc-riscv64-linux-gnu libc6-dev-riscv64-cross; then
    cross riscv64 riscv64 riscv64-linux-gnu-gcc -DFRUGAL_WERROR=ON
    run "riscv64 without vectors" riscv64 "$(emulator riscv64)" -cpu rv64
  fi
else
  programs=test_isa
fi

# A compiler with RISC-V's vectors: RVV_CC, or pip's ziglang.
rvv_cc=${RVV_CC:-}
if [ -z "$rvv_cc" ] && { [ -x "$build/zig/bin/python" ] || python3 -m venv "$build/zig" 2>/dev/null; }; then
  "$build/zig/bin/python" -c 'import ziglang' 2>/dev/null || "$build/zig/bin/python" -m pip -q install ziglang >/dev/null 2>&1 || true
  if "$build/zig/bin/python" -c 'import ziglang' 2>/dev/null; then
    rvv_cc=$(cd "$build" && pwd)/zig/bin/riscv64-cc
    printf '#!/bin/sh\nexec "%s" -m ziglang cc -target riscv64-linux-musl "$@"\n' "${rvv_cc%/*}/python" >"$rvv_cc"
    printf '#!/bin/sh\nexec "%s" -m ziglang ar "$@"\n' "${rvv_cc%/*}/python" >"${rvv_cc%cc}ar"
    chmod +x "$rvv_cc" "${rvv_cc%cc}ar"
  fi
fi
if [ -z "$rvv_cc" ]; then
  echo "skipped: RISC-V vectors (no RVV_CC, and ziglang cannot be installed)"
elif ready "RISC-V vectors" "$rvv_cc" riscv64; then
  # First as it is shipped: this emulator does not tell of vectors, so scalar must be chosen; then told.
  ar=$(command -v "${rvv_cc%cc}ar" || true)
  cross rvv riscv64 "$rvv_cc" ${ar:+"-DCMAKE_AR=$ar" -DCMAKE_RANLIB=/bin/true} -DFRUGAL_RVV_TEST=OFF
  chosen "riscv64 without vectors, a build with them" rvv scalar "$(emulator riscv64)" -cpu rv64
  cross rvv riscv64 "$rvv_cc" -DFRUGAL_RVV_TEST=ON
  for bits in $widths; do
    cpu=rv64,v=true,vext_spec=v1.0,vlen=$bits
    chosen "riscv64, $bits bits" rvv rvv "$(emulator riscv64)" -cpu $cpu
    run "riscv64, vectors of $bits bits" rvv "$(emulator riscv64)" -cpu $cpu
  done
fi

$all || { echo "left out: armv7, riscv64, x86-64 of 2003, AVX-VNNI (make test-cross CROSS=all)"; exit 0; }
[ "$(uname -m)" = x86_64 ] || exit 0

# Nothing outside isa/ may need more than x86-64 has had since 2003: no VEX or EVEX, none of SSE3 to SSE4.2, BMI, popcnt.
make_tests x86 -DFRUGAL_WERROR=ON
for object in "$build"/x86/CMakeFiles/frugal_kernels.dir/src/*.o "$build"/x86/CMakeFiles/frugal_kernels.dir/src/isa/scalar.c.o; do
  found=$(objdump -d --no-show-raw-insn "$object" | awk '$2 ~ /^(v[a-uw-z].*|p(shufb|sign|abs|mulhrsw|maddubsw|hadd|hsub|alignr|blend|ext[bdq]|ins[bdq]|(max|min)(s[bd]|u[wd])|mulld|cmpeqq|cmpgtq|test|cmp[ei]str).*|ptest|popcnt|[lt]zcnt|bls[ir].*|andn|round[sp][sd]|dpp[sd]|blend.*|h(add|sub)p[sd]|addsub.*|mov(ddup|s[hl]dup)|lddqu|crc32.*|sh[lr]x|sarx|rorx|mulx|pdep|pext)$/ {print $2}' | grep -vE '^ver[rw]$' | sort -u | tr '\n' ' ')
  [ -z "$found" ] || { echo "$object: $found: above the baseline"; exit 1; }
done
vnni=$build/x86/CMakeFiles/frugal_kernels.dir/src/isa/avxvnni.c.o
if objdump -t "$vnni" | grep -q ' qconv$'; then
  objdump -d "$vnni" | awk -F '\t' '/vpdpbusd/ {n++} $2 ~ /^62 / {exit 1} END {exit !n}' || { echo "$vnni: EVEX, or no vpdpbusd"; exit 1; }
  echo "avxvnni.c: vpdpbusd without EVEX; outside isa/ nothing above the baseline"
fi

if emulator x86_64 >/dev/null || { get qemu-user-static; emulator x86_64 >/dev/null; }; then
  # qemu64 without what its name has added since: the emulator refuses the rest as the CPU would.
  old=qemu64,-sse3,-ssse3,-sse4.1,-sse4.2,-sse4a,-cx16,-popcnt,-abm
  chosen "x86-64 of 2003" x86 scalar "$(emulator x86_64)" -cpu $old
  run "x86-64 of 2003" x86 "$(emulator x86_64)" -cpu $old
  if ! grep -qw avx2 /proc/cpuinfo; then
    run "x86-64, max" x86 "$(emulator x86_64)" -cpu max
  fi
else
  echo "skipped: x86-64 of 2003 (no qemu-x86_64: qemu-user-static)"
fi

form=2
! grep -qw avx512_vnni /proc/cpuinfo || form=1
make_tests vnni -DFRUGAL_WERROR=ON -DFRUGAL_AVXVNNI_TEST=$form
run "AVX-VNNI, form $form of vpdpbusd" vnni env
