package cgroup

// Within is where a cgroup is below the root of a mount.
func Within(root, path string) string { return within(root, path) }

// Delegated finds where cgroups of v2 with the limits can be made.
func Delegated(l Limits, root, own string) (string, error) {
	return (&Limiter{limits: l}).delegated(root, own)
}
