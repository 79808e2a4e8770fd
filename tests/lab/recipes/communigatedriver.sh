# The driver (lab/communigate) in CommuniGate Pro's place: /lab/stand-ins/stub-communigate.
packages=""

build() {
	mkdir -p /var/CommuniGate
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

start() {
	install -d -m 700 /var/CommuniGate/Queue /var/CommuniGate/Queue/01-09
	install -d -m 755 /var/CommuniGate/Submitted
	cd /var/CommuniGate
	/lab/stand-ins/stub-communigate </dev/null >>/var/log/mail.log 2>&1 &
	cd /
	await_port 25
}
