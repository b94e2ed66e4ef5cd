package main

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls with IDs of 16 bits, which no library makes any more.
func narrow() {
	path := []byte("f\x00")
	name := uintptr(unsafe.Pointer(&path[0]))
	var b [64]byte
	buffer := uintptr(unsafe.Pointer(&b))
	call := func(what string, number, a1, a2, a3 uintptr) uintptr {
		r, _, errno := unix.Syscall(number, a1, a2, a3)
		if errno != 0 {
			do(what, errno)
		}
		return r
	}
	status := func(what string, number uintptr) {
		call(what, number, name, buffer, 0)
		order := binary.LittleEndian
		fmt.Printf("16 bits: %s: %d:%d %o size %d\n", what, order.Uint16(b[12:]), order.Uint16(b[14:]), order.Uint16(b[8:]), order.Uint32(b[20:]))
	}
	status("stat of a great group", unix.SYS_STAT)
	call("chown", unix.SYS_CHOWN, name, 0xffff, 77)
	status("stat", unix.SYS_STAT)
	call("lchown", unix.SYS_LCHOWN, name, 78, 0xffff)
	status("lstat", unix.SYS_LSTAT)
	call("setregid", unix.SYS_SETREGID, 0xffff, 9, 0)
	call("getresgid", unix.SYS_GETRESGID, buffer, buffer+2, buffer+4)
	fmt.Println("16 bits: groups:", b[:6], call("getegid", unix.SYS_GETEGID, 0, 0, 0))
	groups := [2]uint16{5, 6}
	call("setgroups", unix.SYS_SETGROUPS, 2, uintptr(unsafe.Pointer(&groups)), 0)
	n := call("getgroups", unix.SYS_GETGROUPS, 32, buffer, 0)
	fmt.Println("16 bits: supplementary groups:", n, b[:4])
	call("setregid", unix.SYS_SETREGID, 0xffff, 0, 0)
}
