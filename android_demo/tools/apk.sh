#!/usr/bin/env bash
# An APK from what Maven has packaged: dexed, with LiteRT's libraries, aligned, signed with a throw-away key, verified.
#
# It shows that the whole app can be dexed and packaged. It is not for use: ONNX Runtime's libraries for Android are
# not in it (Gradle brings them), and R8 has not shrunk it. Run after: tools/maven.sh package
set -euo pipefail
cd "$(dirname "$0")/.."

version() { sed -n "s/^$1 = \"\(.*\)\"$/\1/p" gradle/libs.versions.toml; }
work=app/target/apk
rm -rf "$work"
mkdir -p "$work/dex" "$work/lib"

tools/maven.sh -q -N dependency:copy -Dartifact="com.android.tools:r8:$(version r8)" -DoutputDirectory="$work" -Dmdep.stripVersion=true
tools/maven.sh -q -N dependency:copy -Dartifact="org.robolectric:android-all:$(version android-all)" \
    -DoutputDirectory="$work" -Dmdep.stripVersion=true

# Everything that the app has at run time; of LiteRT the classes of its archives.
IFS=: read -r -a classpath <<< "$(cat app/target/classpath.txt)"
jars=()
for jar in "${classpath[@]}" app/target/app-*.jar litert-classes/target/litert-classes-*.jar; do
    case $jar in
        */android-all-*) ;;
        *) jars+=("$jar") ;;
    esac
done
java -Xmx1500m -cp "$work/r8.jar" com.android.tools.r8.D8 --release --min-api "$(version min-sdk)" \
    --lib "$work/android-all.jar" --lib "$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")" --output "$work/dex" "${jars[@]}"

for archive in interpreter gpu; do
    cp -r "litert-classes/target/archives/$archive/jni/." "$work/lib/"
done

cp app/target/resources/resources.apk "$work/unsigned.apk"
(cd "$work/dex" && zip -q -X ../unsigned.apk classes*.dex)
(cd "$work" && zip -q -X -0 -r unsigned.apk lib)
if [ -d app/src/main/assets ]; then
    (cd app/src/main && zip -q -X -0 -r "$OLDPWD/$work/unsigned.apk" assets)
fi
zipalign -f -p 4 "$work/unsigned.apk" "$work/aligned.apk"
keytool -genkeypair -keystore "$work/key.jks" -storepass android -keypass android -alias check -keyalg RSA -keysize 2048 \
    -validity 1 -dname CN=check 2> "$work/keytool.log" || { cat "$work/keytool.log" >&2; exit 1; }
apksigner sign --ks "$work/key.jks" --ks-pass pass:android --min-sdk-version "$(version min-sdk)" \
    --out "$work/app.apk" "$work/aligned.apk"

apksigner verify --min-sdk-version "$(version min-sdk)" "$work/app.apk"
zipalign -c -p 4 "$work/app.apk"
dexdump "$work/app.apk" > "$work/dexdump.txt"
for name in MainActivity HeadlessActivity HeadlessInstrumentation; do
    grep -q "Class descriptor .*Lxformer/mobile/demo/$name;" "$work/dexdump.txt" ||
        { echo "the APK has no $name" >&2; exit 1; }
done
echo "APK: $work/app.apk, $(du -h "$work/app.apk" | cut -f1), $(ls "$work/dex" | wc -l) dex files; signed and verified"
