# To be sourced by bash: the virtual environment, the ROS wheels in it and, when built, pirl_msgs and pirl_ros.
_pirl_root=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)
. "$_pirl_root/.venv/bin/activate"
# Before the overlay: its set-up looks these up, and the wheels set none of them.
export AMENT_PREFIX_PATH="$VIRTUAL_ENV" CMAKE_PREFIX_PATH="$VIRTUAL_ENV"
if [ "${PIRL_ROS_OVERLAY:-}" != none ] && [ -f "$_pirl_root/.ros/install/setup.bash" ]; then
    case $- in *u*) _pirl_nounset=1; set +u ;; *) _pirl_nounset= ;; esac
    . "$_pirl_root/.ros/install/setup.bash"
    [ -z "$_pirl_nounset" ] || set -u
    # The sources go first, so that an edit counts at once and a stale link never shadows it.
    export PYTHONPATH="$_pirl_root/msg:$_pirl_root/pirl_ros:$PYTHONPATH"
    unset _pirl_nounset
fi
unset _pirl_root
