package android.os;

/** What NewerAndroid.kt calls of Android 10, where the platform at hand is older. */
public final class PowerManager {
    public int getCurrentThermalStatus() {
        throw new UnsupportedOperationException();
    }
}
