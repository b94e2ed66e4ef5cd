package owners

import "golang.org/x/sys/unix"

// XattrsBy is xattrs of a regular file.
func XattrsBy(k Keeper, list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string]string, error) {
	return k.xattrs(unix.S_IFREG, list, get)
}
